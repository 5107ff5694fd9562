"""The reader "nifti", against nibabel used directly."""

import itertools
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from dinomx_core import DataError
from dinomx_medical_multichannel import nifti, nifti_index
from dinomx_medical_multichannel.kept import Kept
from dinomx_medical_multichannel.nifti import NiftiReader
from dinomx_medical_multichannel.plugin import Nifti, index_nifti

AXES = ("axial", "coronal", "sagittal")
OBLIQUE = np.array([[-1.9, 0.2, 0.1, 10], [0.3, 0.9, 0.2, -4], [0.1, -0.3, 2.8, 7], [0, 0, 0, 1]])


def seen(canonical, axis, number):
    """A slice (H, W) of a RAS+ array, by its definition."""
    cut = canonical[(slice(None),) * {"axial": 2, "coronal": 1, "sagittal": 0}[axis] + (number,)]
    return cut[::-1, ::-1].T


@pytest.fixture(autouse=True)
def cache_home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def volume():
    return np.random.default_rng(3).integers(-1000, 2000, (5, 6, 7)).astype(np.int16)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "hdr", "mgz", "mgh"])
@pytest.mark.parametrize("axis", AXES)
def test_slices_are_those_of_nibabel_in_the_files_own_numbers(tmp_path, volume, axis, suffix):
    kind = {"hdr": nibabel.Nifti1Pair, "mgz": nibabel.MGHImage, "mgh": nibabel.MGHImage}.get(
        suffix, nibabel.Nifti1Image
    )
    file = tmp_path / f"x.{suffix}"
    nibabel.save(kind(volume, OBLIQUE), file)
    canonical = np.asanyarray(nibabel.as_closest_canonical(nibabel.load(file)).dataobj)
    (stack,) = index_nifti(Nifti(axis=axis), [file]).stacks
    reader = NiftiReader(Nifti(axis=axis, units="HU"))
    assert len(stack.planes) == canonical.shape[{"axial": 2, "coronal": 1, "sagittal": 0}[axis]]
    for number, (_, frame) in enumerate(stack.planes):
        plane = reader.read(file, frame)
        assert (plane.pixels.dtype, plane.units, plane.full) == (np.int16, "HU", None)
        np.testing.assert_array_equal(plane.pixels[0], seen(canonical, axis, number))


@pytest.mark.parametrize("axis", AXES)
def test_however_a_file_has_its_axes_a_slice_is_the_same(tmp_path, volume, axis):
    zooms = (0.5, 0.7, 3.0)
    upright = nibabel.Nifti1Image(volume, np.diag((*zooms, 1)))
    spacing = {"axial": (0.7, 0.5), "coronal": (3.0, 0.5), "sagittal": (3.0, 0.7)}[axis]
    codes = [("R", "L"), ("A", "P"), ("S", "I")]
    for order in itertools.permutations(range(3)):
        for ways in itertools.product((0, 1), repeat=3):
            wanted = axcodes2ornt([codes[world][ways[world]] for world in order])
            turned = upright.as_reoriented(ornt_transform(io_orientation(upright.affine), wanted))
            nibabel.save(turned, tmp_path / "x.nii")
            plane = NiftiReader(Nifti(axis=axis)).read(tmp_path / "x.nii", 2)
            np.testing.assert_array_equal(plane.pixels[0], seen(volume, axis, 2))
            assert plane.spacing == pytest.approx(spacing)


def test_slices_are_shown_as_radiologists_look_at_them(tmp_path):
    marks = np.zeros((4, 5, 6), np.uint8)
    marks[3, :, :] = 1  # the patient's right
    marks[:, 4, :] += 2  # the front
    marks[:, :, 5] += 4  # the head
    nibabel.save(nibabel.Nifti1Image(marks, np.eye(4)), tmp_path / "x.nii")
    axial, coronal, sagittal = (NiftiReader(Nifti(axis=axis)).read(tmp_path / "x.nii", 1).pixels[0] for axis in AXES)
    assert axial[0].tolist() == [3, 2, 2, 2] and axial[:, 0].tolist() == [3, 1, 1, 1, 1]
    assert coronal[0].tolist() == [5, 4, 4, 4] and coronal[:, 0].tolist() == [5, 1, 1, 1, 1, 1]
    assert sagittal[0].tolist() == [6, 4, 4, 4, 4] and sagittal[:, 0].tolist() == [6, 2, 2, 2, 2, 2]


def test_a_region_is_cut_out(tmp_path, volume):
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "x.nii")
    cut = NiftiReader(Nifti()).read(tmp_path / "x.nii", 1, (1, 2, 3, 2)).pixels
    np.testing.assert_array_equal(cut[0], seen(volume, "axial", 1)[1:4, 2:4])


@pytest.mark.parametrize(
    ("stored", "given"),
    [(np.int16, np.float32), (np.uint8, np.float32), (np.int32, np.float64), (np.float32, np.float32)],
)
def test_slope_and_intercept_are_applied(tmp_path, volume, stored, given):
    image = nibabel.Nifti1Image(np.abs(volume).astype(stored), np.eye(4))
    image.header.set_slope_inter(0.25, -7)
    image.header.set_data_dtype(stored)
    nibabel.save(image, tmp_path / "x.nii.gz")
    wanted = nibabel.load(tmp_path / "x.nii.gz").get_fdata()
    plane = NiftiReader(Nifti()).read(tmp_path / "x.nii.gz", 3)
    assert plane.pixels.dtype == given
    np.testing.assert_allclose(plane.pixels[0], seen(wanted, "axial", 3), rtol=1e-6)


def test_units_of_length_become_millimetres(tmp_path, volume):
    image = nibabel.Nifti1Image(volume, np.diag((20, 30, 40, 1)))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "x.nii")
    assert NiftiReader(Nifti()).read(tmp_path / "x.nii").spacing == pytest.approx((0.03, 0.02))


def test_a_fourth_axis_is_channels_or_frames(tmp_path):
    data = np.random.default_rng(0).random((4, 5, 6, 3)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), tmp_path / "x.nii.gz")
    (stack,) = index_nifti(Nifti(), [tmp_path / "x.nii.gz"]).stacks
    assert len(stack.planes) == 6
    pixels = NiftiReader(Nifti()).read(tmp_path / "x.nii.gz", 2).pixels
    np.testing.assert_array_equal(pixels, np.stack([seen(data[..., t], "axial", 2) for t in range(3)]))
    options = Nifti(fourth="frames")
    stacks = index_nifti(options, [tmp_path / "x.nii.gz"]).stacks
    assert [stack.id for stack in stacks] == ["x.nii.gz 1", "x.nii.gz 2", "x.nii.gz 3"]
    reader = NiftiReader(options)
    for time, stack in enumerate(stacks):
        for number, (_, frame) in enumerate(stack.planes):
            np.testing.assert_array_equal(
                reader.read(tmp_path / "x.nii.gz", frame).pixels[0], seen(data[..., time], "axial", number)
            )


def test_colours_planes_and_vectors_are_read(tmp_path):
    colour = np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    colour["G"] = 9
    nibabel.save(nibabel.Nifti1Image(colour, np.eye(4)), tmp_path / "rgb.nii")
    assert NiftiReader(Nifti()).read(tmp_path / "rgb.nii").pixels[:, 0, 0].tolist() == [0, 9, 0]
    flat = np.arange(20, dtype=np.uint8).reshape(4, 5)
    nibabel.save(nibabel.Nifti1Image(flat, np.eye(4)), tmp_path / "flat.nii")
    (stack,) = index_nifti(Nifti(), [tmp_path / "flat.nii"]).stacks
    assert stack.planes == ((0, 0),)
    np.testing.assert_array_equal(NiftiReader(Nifti()).read(tmp_path / "flat.nii").pixels[0], flat[::-1, ::-1].T)
    vectors = np.random.default_rng(0).random((4, 5, 6, 1, 2)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(vectors, np.eye(4)), tmp_path / "vectors.nii")
    pixels = NiftiReader(Nifti()).read(tmp_path / "vectors.nii").pixels
    np.testing.assert_array_equal(pixels[1], seen(vectors[:, :, :, 0, 1], "axial", 0))


@pytest.mark.parametrize("slope", [1, -2])
def test_empty_slices_are_left_out_and_remembered(tmp_path, monkeypatch, slope):
    data = np.zeros((4, 5, 6), np.int16)
    data[0, 0, 2], data[:, :, 3] = slope, slope
    image = nibabel.Nifti1Image(data, np.diag((1, 1, -1, 1)))
    image.header.set_slope_inter(slope, 3)
    nibabel.save(image, tmp_path / "x.nii.gz")
    for share, used in ((0.05, (2, 3)), (0.5, (2,)), (1.0, (2,))):
        index = index_nifti(Nifti(skip_empty=share), [tmp_path / "x.nii.gz"])
        assert (index.stacks[0].used, len(index.stacks[0].planes)) == (used, 6)
        assert index.notes == (f"{6 - len(used)} slices are left out as empty (skip_empty = {share:g})",)
        monkeypatch.setattr(nifti_index, "work_out", None)  # from now on it is known
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    os.utime(tmp_path / "x.nii.gz", (1, 1))
    monkeypatch.setattr(nifti_index, "work_out", lambda volume, axis, fourth: [[0.0, 1.0] * 3])
    assert index_nifti(Nifti(skip_empty=0.5), [tmp_path / "x.nii.gz"]).stacks[0].used == (1, 3, 5)


def test_a_home_that_cannot_be_written_to_only_costs_time(tmp_path, monkeypatch, volume):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "x.nii.gz")
    assert index_nifti(Nifti(skip_empty=0.1), [tmp_path / "x.nii.gz"]).stacks[0].used is None


def test_the_index_reads_headers_alone(tmp_path, monkeypatch, volume):
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "x.nii.gz")
    monkeypatch.setattr(nibabel.arrayproxy.ArrayProxy, "get_unscaled", None)
    monkeypatch.setattr(nibabel.arrayproxy.ArrayProxy, "__array__", None)
    assert len(index_nifti(Nifti(), [tmp_path / "x.nii.gz"]).stacks[0].planes) == 7


def test_what_is_wrong_with_a_file_is_told(tmp_path, volume):
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "short.nii.gz")
    (tmp_path / "short.nii.gz").write_bytes((tmp_path / "short.nii.gz").read_bytes()[:-60])
    (tmp_path / "text.nii").write_text("no volume")
    nibabel.save(nibabel.Nifti1Pair(volume, np.eye(4)), tmp_path / "pair.hdr")
    nibabel.save(nibabel.Nifti1Image(volume.astype(np.complex64), np.eye(4)), tmp_path / "complex.nii")
    (tmp_path / "pair.img").unlink()
    index = index_nifti(Nifti(), [tmp_path / name for name in ("text.nii", "lost.nii")])
    assert index.stacks == ()
    assert index.faults[0].startswith("text.nii: cannot be read as NIfTI: ")
    assert index.faults[1].startswith("lost.nii: cannot be read: ")
    reader = NiftiReader(Nifti())
    for name in ("short.nii.gz", "text.nii", "lost.nii", "pair.hdr", "complex.nii"):
        with pytest.raises(DataError, match="^(cannot be read|holds numbers of type complex64)"):
            reader.read(tmp_path / name)
    with (tmp_path / "text.nii").open("rb") as stream, pytest.raises(DataError, match="^is read from a path only"):
        reader.read(stream)


def test_a_slice_that_is_not_there_is_told(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6, 2), np.uint8), np.eye(4)), tmp_path / "x.nii")
    with pytest.raises(DataError, match=r"^has no slice 6; there are 6 \(axial\)$"):
        NiftiReader(Nifti()).read(tmp_path / "x.nii", 6)
    with pytest.raises(DataError, match=r"^has no slice 12; there are 12 \(axial\)$"):
        NiftiReader(Nifti(fourth="frames")).read(tmp_path / "x.nii", 12)


def test_a_volume_is_decompressed_once_and_by_one_thread(tmp_path, monkeypatch, volume):
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "x.nii.gz")
    opened = []
    real = nifti.open_volume
    monkeypatch.setattr(nifti, "open_volume", lambda file: opened.append(file) or real(file))
    reader = NiftiReader(Nifti())
    with ThreadPoolExecutor(8) as pool:
        planes = list(pool.map(lambda n: reader.read(tmp_path / "x.nii.gz", n % 7).pixels[0], range(70)))
    assert len(opened) == 1
    for number, plane in enumerate(planes):
        np.testing.assert_array_equal(plane, seen(volume, "axial", number % 7))
    copy = pickle.loads(pickle.dumps(reader))
    np.testing.assert_array_equal(copy.read(tmp_path / "x.nii.gz").pixels[0], planes[0])
    assert len(opened) == 2


def test_a_volume_that_the_cache_has_no_room_for_is_still_read_and_told(tmp_path, volume):
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "x.nii.gz")
    options = Nifti(cache=0)
    assert index_nifti(options, [tmp_path / "x.nii.gz"]).notes == (
        "1 volumes are larger than cache = 0 (MiB) and are decompressed anew for each slice; raise it, or store them uncompressed",
    )
    reader = NiftiReader(options)
    np.testing.assert_array_equal(reader.read(tmp_path / "x.nii.gz", 2).pixels[0], seen(volume, "axial", 2))
    assert reader.kept.taken == 0


def test_what_is_kept_stays_within_its_room():
    kept = Kept(100)
    made = []
    for key in (1, 2, 1, 3, 1, 2):
        assert kept.get(key, lambda key=key: made.append(key) or (key * 10, 40)) == key * 10
        assert kept.taken <= 100
    assert made == [1, 2, 3, 2]
    assert kept.get(9, lambda: ("large", 101)) == "large" and 9 not in kept.values
    with pytest.raises(ZeroDivisionError):
        kept.get(5, lambda: 1 / 0)
    assert not kept.making


def test_a_forked_copy_does_not_wait_for_locks_that_others_held():
    kept = Kept(100)
    kept.process -= 1
    kept.lock = threading.Lock()
    kept.lock.acquire()
    assert kept.get(1, lambda: ("fresh", 10)) == "fresh"
