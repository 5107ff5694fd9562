"""Hugging Face data sets and MedMNIST files, as others made them."""

import io
import json
import pickle
import subprocess
import sys

import datasets
import fsspec
import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from dinomx_core import ConfigError, DataError, Sampled, api
from dinomx_core.builtin import cache, hf_rows
from dinomx_core.builtin.sourced import HfData, MedMnistData
from dinomx_core.builtin.sources import HfDataset, MedMnist, count_medmnist, count_rows
from dinomx_core.declare.discover import discover
from dinomx_core.declare.values import Chosen
from tests import flat_files

READER = Chosen("reader", discover([flat_files]).find("reader", "flat"), flat_files.Flat())


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    """Caches of each test's own."""
    monkeypatch.setenv("DINOMX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_fetched", 0)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-cache")


def grey(number, kind=np.int16):
    return np.full((1, 6, 7), number, kind)


def encoded(number):
    stream = io.BytesIO()
    np.save(stream, grey(number))
    return stream.getvalue()


def table(count=6, labels=True, first=0):
    """Rows of encoded images with a label and a patient."""
    numbers = range(first, first + count)
    columns = {"image": [{"bytes": encoded(n), "path": f"{n}.flat"} for n in numbers]}
    features = {"image": datasets.Image()}
    if labels:
        columns |= {"label": [n % 2 for n in numbers], "group": [f"p{n // 2}" for n in numbers]}
        features |= {"label": datasets.ClassLabel(names=["sick", "fit"]), "group": datasets.Value("string")}
    return datasets.Dataset.from_dict(columns, datasets.Features(features))


# Hugging Face ----------------------------------------------------------------------------------------------------------


def saved(tmp_path, form):
    """The same rows in one of the forms that data sets have on disk."""
    rows, place = table(), tmp_path / form
    if form == "saved":
        rows.save_to_disk(place)
    elif form == "shuffled":
        order = [5, 4, 3, 2, 1, 0]
        rows.select(order).select(order).save_to_disk(place)
    elif form == "file.parquet":
        rows.to_parquet(place)
    elif form == "file.arrow":
        rows.save_to_disk(tmp_path / "whole")
        (file,) = (tmp_path / "whole").glob("*.arrow")
        place.write_bytes(file.read_bytes())
    else:
        (place / "data").mkdir(parents=True)
        for part in range(2):
            rows.select(range(part * 3, part * 3 + 3)).to_parquet(place / "data" / f"train-0000{part}-of-00002.parquet")
        (place / "README.md").write_text("a data set")
    return str(place)


@pytest.mark.parametrize("form", ["saved", "shuffled", "file.parquet", "file.arrow", "hub"])
def test_every_form_on_disk_gives_the_same_rows(tmp_path, form):
    options = HfDataset(saved(tmp_path, form), reader=READER)
    info = count_rows(options)
    assert (info.count, info.channels, info.classes, info.notes) == (6, 1, ("sick", "fit"), ())
    assert info.sampled == Sampled("int16", 0.0, 5.0, "HU", (-1024.0, 3071.0))
    data = HfData(options)
    assert [(item.label, item.group, item.id, float(item.image.max())) for item in data] == [
        (n % 2, f"p{n // 2}", f"{n}.flat", float(n)) for n in range(6)
    ]
    assert data[3].image.dtype == torch.float32 and data[3].units == "HU"
    again = pickle.loads(pickle.dumps(data))
    assert torch.equal(again[5].image, data[5].image)


def test_the_digest_follows_the_rows_and_not_their_place(tmp_path):
    digests = {
        count_rows(HfDataset(saved(tmp_path, form), reader=READER)).digest for form in ("saved", "file.parquet", "hub")
    }
    assert len(digests) == 1
    table(5).save_to_disk(tmp_path / "other")
    assert count_rows(HfDataset(str(tmp_path / "other"), reader=READER)).digest not in digests


def test_parts_are_named_or_all_taken(tmp_path):
    parts = {"train": table(4), "test": table(2, first=4)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "d")
    (tmp_path / "hub").mkdir()
    for name, rows in parts.items():
        rows.to_parquet(tmp_path / "hub" / f"{name}.parquet")
    for name in ("d", "hub"):
        path = str(tmp_path / name)
        assert count_rows(HfDataset(path, split="test", reader=READER)).count == 2
        assert [item.id for item in HfData(HfDataset(path, split="all", reader=READER))] == [
            f"{n}.flat" for n in range(6)
        ]
        with pytest.raises(
            DataError, match=rf'^"{path}" has the parts "train", "test"; name one of them, or "all"$'
        ) as caught:
            count_rows(HfDataset(path, reader=READER))
        assert caught.value.key == "split"
        with pytest.raises(DataError, match=rf'^"{path}" has no part "val"; it has "train", "test"$'):
            count_rows(HfDataset(path, split="val", reader=READER))


def test_texts_and_numbers_are_labels_and_missing_ones_none(tmp_path):
    rows = table(4, labels=False)
    rows = rows.add_column("age", [70, None, 9, 70]).add_column("site", ["b", "a", None, "a"])
    rows.save_to_disk(tmp_path / "d")
    info = count_rows(HfDataset(str(tmp_path / "d"), label="age", reader=READER))
    assert (info.classes, info.notes) == (("9", "70"), ("1 of 4 images have no label",))
    data = HfData(HfDataset(str(tmp_path / "d"), label="site", group="age", reader=READER))
    assert [(item.label, item.group) for item in data] == [(1, "70"), (0, ""), (None, "9"), (0, "70")]
    assert count_rows(HfDataset(str(tmp_path / "d"), reader=READER)).classes == ()


def test_missing_and_useless_columns_are_named(tmp_path):
    rows = table(2).add_column("scores", [[0.5], [0.5]])
    rows.save_to_disk(tmp_path / "d")
    path = str(tmp_path / "d")
    for options, key, message in (
        (
            {"image": "img"},
            "image",
            f'"{path}" has no column "img"; its columns are "image", "label", "group", "scores"',
        ),
        ({"label": "y"}, "label", f'"{path}" has no column "y"; its columns are "image", "label", "group", "scores"'),
        ({"image": "group"}, "path", f"none of the 2 images looked at (of 2) can be read; the first: {path}: row 0: "),
        ({"image": "label"}, "image", 'column "label" holds no images: its type is ClassLabel('),
        ({"label": "scores"}, "label", 'column "scores" holds values of type list<'),
    ):
        with pytest.raises(DataError) as caught:
            count_rows(HfDataset(path, reader=READER, **options))
        assert str(caught.value).startswith(message) and caught.value.key == key


def test_plain_bytes_and_paths_are_images_too(tmp_path):
    place = tmp_path / "files"
    place.mkdir()
    for number in range(3):
        flat_files.write(place / f"{number}.flat", grey(number))
    parquet.write_table(pa.table({"image": [encoded(n) for n in range(3)]}), place / "bytes.parquet")
    parquet.write_table(pa.table({"image": [f"{n}.flat" for n in range(3)]}), place / "paths.parquet")
    structs = [{"bytes": None, "path": f"{n}.flat"} for n in range(3)]
    parquet.write_table(pa.table({"image": structs}), place / "structs.parquet")
    for number in range(3):
        with fsspec.open(f"memory://b/{number}.flat", "wb") as file:
            file.write(encoded(number))
    parquet.write_table(pa.table({"image": [f"memory://b/{n}.flat" for n in range(3)]}), place / "urls.parquet")
    for name in ("bytes", "paths", "structs", "urls"):
        data = HfData(HfDataset(str(place / f"{name}.parquet"), reader=READER))
        assert [int(item.image.max()) for item in data] == [0, 1, 2], name


def test_arrays_keep_their_type_of_numbers(tmp_path):
    grey2, colour = [np.full((4, 5), n * 1000) for n in range(3)], [np.full((4, 5, 3), n) for n in range(3)]
    features = datasets.Features(
        flat=datasets.Array2D((4, 5), "uint16"),
        colour=datasets.Array3D((4, 5, 3), "uint8"),
        lists=datasets.Sequence(datasets.Sequence(datasets.Value("float32"))),
    )
    columns = {"flat": grey2, "colour": colour, "lists": [array.tolist() for array in grey2]}
    datasets.Dataset.from_dict(columns, features).save_to_disk(tmp_path / "d")

    def images(column, **options):
        return [item.image for item in HfData(HfDataset(str(tmp_path / "d"), image=column, **options))]

    assert [(i.shape, i.dtype, float(i[0, 0, 0])) for i in images("flat")] == [
        ((1, 4, 5), torch.uint16, n * 1000) for n in range(3)
    ]
    assert [(i.shape, i.dtype, float(i[0, 0, 0])) for i in images("colour")] == [
        ((3, 4, 5), torch.uint8, n) for n in range(3)
    ]
    assert images("colour", axes="CHW")[0].shape == (4, 5, 3)
    assert [(i.shape, i.dtype, float(i[0, 0, 0])) for i in images("lists")] == [
        ((1, 4, 5), torch.float32, n * 1000) for n in range(3)
    ]


def test_a_row_that_cannot_be_read_is_named(tmp_path):
    rows = [{"bytes": encoded(n), "path": None} for n in range(20)]
    rows[1] = {"bytes": b"broken", "path": None}
    rows[2] = {"bytes": None, "path": None}
    parquet.write_table(pa.table({"image": rows}), tmp_path / "t.parquet")
    data = HfData(HfDataset(str(tmp_path / "t.parquet"), reader=READER))
    assert data[0].id == "0"
    for number, message in ((1, "is not flat; write it again"), (2, "has no image")):
        with pytest.raises(DataError, match=rf"^{tmp_path}/t.parquet: row {number}: {message}$"):
            data[number]


def test_what_is_no_data_set_is_refused_and_nothing_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("looked elsewhere"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.parquet").write_bytes(b"no parquet")
    (tmp_path / "a.csv").write_text("path\n")
    for path, message in (
        ("some/name", 'there is no folder or file "some/name" (looked in '),
        (str(tmp_path / "empty"), f'"{tmp_path}/empty" holds neither a saved data set nor Parquet or Arrow files'),
        (str(tmp_path / "broken.parquet"), f'"{tmp_path}/broken.parquet" cannot be read as a Hugging Face data set: '),
        (
            str(tmp_path / "a.csv"),
            f'"{tmp_path}/a.csv" is no Parquet or Arrow file; name one, or the data set\'s folder',
        ),
    ):
        with pytest.raises(DataError) as caught:
            count_rows(HfDataset(path, reader=READER))
        assert str(caught.value).startswith(message) and caught.value.key == "path"


def test_without_the_package_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        DataError, match=r'^needs the package datasets, which is not installed: pip install "dinomx\[datasets\]"$'
    ):
        hf_rows.opened(tmp_path, str(tmp_path), "")


# MedMNIST --------------------------------------------------------------------------------------------------------------


def medmnist(place, shape=(6, 7), columns=1, save=np.savez_compressed, **others):
    """A file as MedMNIST has them; the pixels of an image are its number in its part."""
    arrays = {}
    for split, count in (("train", 5), ("val", 3), ("test", 2)):
        numbers = np.arange(count, dtype=np.uint8)
        arrays[f"{split}_images"] = np.broadcast_to(numbers.reshape(-1, *[1] * len(shape)), (count, *shape)).copy()
        arrays[f"{split}_labels"] = np.repeat(numbers[:, None] % 3, columns, 1)
    save(place, **{**arrays, **others})
    return str(place)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_medmnist_has_parts_of_grey_or_colour_images(tmp_path, save):
    path = medmnist(tmp_path / "grey.npz", save=save)
    info = count_medmnist(MedMnist(path))
    assert (info.count, info.channels, info.classes, info.sampled) == (
        5,
        1,
        ("0", "1", "2"),
        Sampled("uint8", 0.0, 4.0),
    )
    every = MedMnistData(MedMnist(path, "all"))
    names = [f"{split}/{n}" for split, count in (("train", 5), ("val", 3), ("test", 2)) for n in range(count)]
    assert [item.id for item in every] == names
    assert [(item.label, int(item.image.max())) for item in every] == [(int(n[-1]) % 3, int(n[-1])) for n in names]
    assert every[9].image.shape == (1, 6, 7) and every[9].image.dtype == torch.uint8
    assert MedMnistData(MedMnist(path, channels=3))[1].image.shape == (3, 6, 7)
    colour = MedMnist(medmnist(tmp_path / "colour.npz", (6, 7, 3), save=save), "test")
    assert count_medmnist(colour).channels == 3 and MedMnistData(colour)[1].image.shape == (3, 6, 7)
    assert count_medmnist(colour).classes == ("0", "1", "2")  # as in all parts


def test_volumes_are_refused_or_give_their_slices(tmp_path):
    path = medmnist(tmp_path / "v.npz", (4, 6, 7))
    with pytest.raises(
        DataError, match='^holds volumes of 4 x 6 x 7; set volumes = "slices" to take their slices as images$'
    ) as caught:
        count_medmnist(MedMnist(path))
    assert caught.value.key == "volumes"
    options = MedMnist(path, "val", "slices")
    info = count_medmnist(options)
    assert (info.count, info.notes) == (12, ("each of 3 volumes gives 4 images, its slices",))
    item = MedMnistData(options)[6]
    assert (item.id, item.group, item.label, item.image.shape, int(item.image.max())) == (
        "val/1/2",
        "val/1",
        1,
        (1, 6, 7),
        1,
    )


def test_several_columns_of_labels_are_several_classes(tmp_path):
    info = count_medmnist(MedMnist(medmnist(tmp_path / "m.npz", columns=14)))
    assert (info.classes, info.label_kind) == (tuple(map(str, range(14))), "classes")
    rows = np.load(tmp_path / "m.npz")["train_labels"]
    items = MedMnistData(MedMnist(str(tmp_path / "m.npz")))
    assert all(items[n].label == tuple(np.flatnonzero(row).tolist()) for n, row in enumerate(rows))


def test_files_that_are_none_are_refused(tmp_path):
    whole = tmp_path / "whole.npz"
    medmnist(whole)
    data = whole.read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[:-30])
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    np.savez(tmp_path / "part.npz", train_images=np.zeros((2, 3, 3), np.uint8))
    np.savez(tmp_path / "flat.npz", train_images=np.zeros((2, 3), np.uint8))
    np.savez(tmp_path / "objects.npz", train_images=np.array([None, {}], object))
    for name, options, message in (
        ("none", {}, f"{tmp_path}/none.npz: No such file or directory"),
        ("cut", {}, f'"{tmp_path}/cut.npz" cannot be read as .npz: '),
        (
            "other",
            {},
            f'"{tmp_path}/other.npz" is no MedMNIST file: it has no array train_images, val_images or test_images, but weights',
        ),
        ("part", {"split": "test"}, f'"{tmp_path}/part.npz" has no part "test"; it has train'),
        ("flat", {}, f'"{tmp_path}/flat.npz" holds arrays of shape (2, 3); expected (images, rows, columns[, 3])'),
        ("objects", {}, f"{tmp_path}/objects.npz: train_images.npy cannot be read: "),
    ):
        with pytest.raises(DataError) as caught:
            count_medmnist(MedMnist(str(tmp_path / f"{name}.npz"), **options))
        assert str(caught.value).startswith(message)


def test_a_damaged_array_is_named(tmp_path):
    path = tmp_path / "m.npz"
    medmnist(path, save=np.savez)
    data = bytearray(path.read_bytes())
    data[data.index(b"train_images.npy") + 300] ^= 255
    path.write_bytes(data)
    with pytest.raises(
        DataError, match=rf"^{path}: train_images.npy cannot be read: Bad CRC-32.*; fetch the file again$"
    ):
        count_medmnist(MedMnist(str(path)))


def test_arrays_are_unpacked_once_and_mapped_and_a_changed_file_again(tmp_path):
    path = medmnist(tmp_path / "m.npz")
    first = MedMnistData(MedMnist(path))
    assert isinstance(first.arrays.images[0], np.memmap)
    copy = pickle.loads(pickle.dumps(first))
    assert torch.equal(copy[3].image, first[3].image)
    assert len(pickle.dumps(first)) < 2000 and len(list((tmp_path / "cache").glob("??/*-train_images.npy"))) == 1
    medmnist(path, (8, 8))
    assert MedMnistData(MedMnist(path))[0].image.shape == (1, 8, 8) and first[0].image.shape == (1, 6, 7)


# All -------------------------------------------------------------------------------------------------------------------


def test_looking_imports_no_torch(tmp_path):
    medmnist(tmp_path / "m.npz")
    features = datasets.Features(image=datasets.Array2D((4, 5), "uint8"))
    datasets.Dataset.from_dict({"image": [np.zeros((4, 5))] * 3}, features).save_to_disk(tmp_path / "d")
    code = f"""
import sys
from dinomx_core.builtin.sources import HfDataset, MedMnist, count_medmnist, count_rows
assert count_medmnist(MedMnist({str(tmp_path / "m.npz")!r})).count == 5
assert count_rows(HfDataset({str(tmp_path / "d")!r})).count == 3
assert 'torch' not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_they_are_planned_and_trained_on(toy, tmp_path):
    table(12).save_to_disk(tmp_path / "d")
    path = medmnist(tmp_path / "m.npz", (16, 16))
    for data in (
        {"name": "medmnist", "path": path, "split": "all"},
        {"name": "hf-dataset", "path": str(tmp_path / "d"), "split": "train", "reader": {"name": "flat"}},
    ):
        config = toy(data=data, intensity={"range": [0, 255]})
        plan = api.plan(config, plugins=[flat_files])
        assert plan.data.channels == 1 and plan.data.count in (10, 12)
    config = toy(run={"steps": 1}, data={"name": "medmnist", "path": path, "split": "all"})
    folder = api.run(config).folder
    assert (
        len((folder / "metrics.jsonl").read_text().splitlines()) == 1
        and json.loads((folder / "metrics.jsonl").read_text())["loss"] > 0
    )
    with pytest.raises(
        ConfigError, match='data.split: expected one of "train", "val", "test", "all", got "valid"; did you mean "val"'
    ):
        api.plan(toy(data={"name": "medmnist", "path": path, "split": "valid"}))
