"""The reader "ome-zarr", against arrays of small pyramids."""

import json
import multiprocessing
import pickle
import shutil
import sys

import numpy as np
import pytest

from dinomx_core import DataError
from dinomx_medical_multichannel.ome_zarr import OmeZarrReader
from dinomx_medical_multichannel.plugin import OmeZarr, index_ome_zarr

zarr = pytest.importorskip("zarr")
KINDS = {"t": "time", "c": "channel"}


@pytest.fixture
def save(tmp_path):
    """A function of an array and its axes -> a folder with a pyramid of two levels, as bfio, ome-zarr-py and others write it."""

    def write(array, axes, version="0.5", folder="x.zarr", unit="micrometer"):
        group = zarr.open_group(tmp_path / folder, mode="w", zarr_format=3 if version == "0.5" else 2)
        levels = []
        for level, step in enumerate((1, 2)):
            data = array[..., ::step, ::step]
            chunks = (*[1] * (array.ndim - 2), 16, 16)
            group.create_array(str(level), data=data, chunks=chunks)
            scale = [1.0] * (array.ndim - 2) + [0.5 * step, 0.25 * step]
            levels.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
        named = [{"name": a, "type": KINDS.get(a, "space"), **({} if a in KINDS else {"unit": unit})} for a in axes]
        pyramid = {"multiscales": [{"axes": named, "datasets": levels, "version": version}]}
        group.attrs.update({"ome": {"version": version, **pyramid}} if version == "0.5" else pyramid)
        return tmp_path / folder

    return write


def some(shape):
    return (np.random.default_rng(0).random(shape) * 60000).astype(np.uint16)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_channels_are_channels_and_other_axes_count_planes(save, version):
    data = some((2, 3, 4, 40, 50))
    folder = save(data, "tczyx", version)
    index = index_ome_zarr(OmeZarr(), [folder])
    assert [stack.id for stack in index.stacks] == ["x.zarr 1", "x.zarr 2"] and index.faults == ()
    reader = OmeZarrReader(OmeZarr())
    for time, stack in enumerate(index.stacks):
        for place, (_, frame) in enumerate(stack.planes):
            plane = reader.read(folder, frame)
            np.testing.assert_array_equal(plane.pixels, data[time, :, place])
            assert plane.spacing == pytest.approx((5e-4, 2.5e-4))
    picked = OmeZarrReader(OmeZarr(channels=[2, 0])).read(folder, 5).pixels
    np.testing.assert_array_equal(picked, data[1, [2, 0], 1])


def test_a_level_of_the_pyramid_is_read(save):
    data = some((3, 40, 50))
    folder = save(data, "cyx")
    plane = OmeZarrReader(OmeZarr(level=1)).read(folder)
    np.testing.assert_array_equal(plane.pixels, data[:, ::2, ::2])
    assert plane.spacing == pytest.approx((1e-3, 5e-4))
    message = "level = 2: it has 2 levels, counted from 0"
    assert index_ome_zarr(OmeZarr(level=2), [folder]).faults == (f"x.zarr: {message}",)
    assert index_ome_zarr(OmeZarr(channels=[3]), [folder]).faults == (
        "x.zarr: channels: there is no channel 3; it has 3, counted from 0",
    )


def test_a_region_reads_only_the_chunks_that_it_touches(save):
    data = some((2, 64, 64))
    folder = save(data, "zyx")
    kept = folder / "0" / "c" / "1" / "1" / "2"
    chunks = [file for file in (folder / "0" / "c").rglob("*") if file.is_file() and file != kept]
    for file in chunks:
        file.write_bytes(b"spoilt")
    reader = OmeZarrReader(OmeZarr())
    np.testing.assert_array_equal(reader.read(folder, 1, (17, 33, 14, 12)).pixels[0], data[1, 17:31, 33:45])
    with pytest.raises(DataError, match="^cannot be read as OME-Zarr: "):
        reader.read(folder, 1, (15, 33, 14, 12))


def test_axes_that_are_not_told_are_those_of_old_versions(save):
    data = some((3, 2, 20, 30))
    folder = save(data, "czyx", "0.4")
    about = json.loads((folder / ".zattrs").read_text())
    del about["multiscales"][0]["axes"]
    (folder / ".zattrs").write_text(json.dumps(about))
    plane = OmeZarrReader(OmeZarr()).read(folder, 1)
    np.testing.assert_array_equal(plane.pixels, data[:, 1])
    assert plane.spacing is None


def test_an_image_of_a_collection_is_named(save, tmp_path):
    data = some((20, 30))
    message = '{}.zarr: is a collection of images; name one of them, such as image = "{}", or list their folders'
    for folder in ("many.zarr/1", "many.zarr/0", "plate.zarr/A/1/0"):
        save(data, "yx", folder=folder)
    zarr.open_group(tmp_path / "many.zarr", mode="a")
    zarr.open_group(tmp_path / "plate.zarr", mode="a").attrs["ome"] = {"plate": {"wells": [{"path": "A/1"}]}}
    faults = index_ome_zarr(OmeZarr(), [tmp_path / "many.zarr", tmp_path / "plate.zarr"]).faults
    assert faults == (message.format("many", "0"), message.format("plate", "A/1/0"))
    options = OmeZarr(image="A/1/0")
    assert len(index_ome_zarr(options, [tmp_path / "plate.zarr"]).stacks) == 1
    np.testing.assert_array_equal(OmeZarrReader(options).read(tmp_path / "plate.zarr").pixels[0], data)


def test_what_is_wrong_with_a_folder_is_told(save, tmp_path):
    zarr.open_group(tmp_path / "empty.zarr", mode="w")
    (tmp_path / "text.zarr").mkdir()
    lost = save(some((20, 30)), "yx", folder="lost.zarr")
    shutil.rmtree(lost / "0")
    short = save(some((2, 20, 30)), "yx", folder="short.zarr")
    index = index_ome_zarr(OmeZarr(), [tmp_path / f"{name}.zarr" for name in ("empty", "text", "lost")] + [short])
    assert index.stacks == ()
    assert index.faults[0] == "empty.zarr: holds no image: its metadata has no multiscales"
    assert index.faults[1].startswith("text.zarr: cannot be read as OME-Zarr: ")
    assert index.faults[2].startswith("lost.zarr: cannot be read as OME-Zarr: ")
    assert index.faults[3] == "short.zarr: names 2 axes of an array that has 3"
    with pytest.raises(DataError, match="^is read from a folder only"), (lost / "zarr.json").open("rb") as stream:
        OmeZarrReader(OmeZarr()).read(stream)


def test_what_to_install_is_told_where_zarr_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "zarr", None)
    message = '^OME-Zarr needs zarr: pip install "dinomx-medical-multichannel\\[zarr\\]"$'
    with pytest.raises(DataError, match=message):
        OmeZarrReader(OmeZarr())
    with pytest.raises(DataError, match=message):
        index_ome_zarr(OmeZarr(), [tmp_path])


def mean_of(reader, folder, answers):
    answers.put(float(reader.read(folder, 1).pixels.mean()))


@pytest.mark.skipif(not hasattr(multiprocessing, "get_context") or sys.platform == "win32", reason="there is no fork")
def test_copies_and_forked_workers_read_the_same(save):
    data = some((2, 40, 50))
    folder = save(data, "zyx")
    reader = OmeZarrReader(OmeZarr())
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(reader)).read(folder, 1).pixels[0], data[1])
    reader.read(folder, 0)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    worker = context.Process(target=mean_of, args=(reader, folder, answers))
    worker.start()
    assert answers.get(timeout=30) == data[1].mean()
    worker.join()
