"""The reader "dicom", against pydicom used directly on every file that comes with it."""

import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, get_decoder
from pydicom.uid import ExplicitVRLittleEndian

from dinomx_core import DataError
from dinomx_medical_multichannel.dicom import DicomReader, stored_range
from dinomx_medical_multichannel.plugin import Dicom, index_dicom

warnings.simplefilter("ignore")
BUNDLED = sorted(file for file in Path(pydicom.data.__file__).parent.rglob("*") if file.is_file())
READER = DicomReader(Dicom())


def bundled(name):
    return Path(get_testdata_file(name, download=False))


def expected(file):
    """The frames of a file as pydicom has them, (F, C, H, W) in float64."""
    data = pydicom.dcmread(file)
    pixels = data.pixel_array
    kind = data.PhotometricInterpretation
    if kind == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, data)
    elif data.SamplesPerPixel == 1:
        pixels = apply_modality_lut(pixels, data).astype(np.float64)
        if kind == "MONOCHROME1":
            ends = np.array([0, 2**data.BitsStored - 1]) * float(data.RescaleSlope) + float(data.RescaleIntercept)
            pixels = ends.sum() - pixels
    if int(data.get("NumberOfFrames") or 1) == 1:
        pixels = pixels[None]
    return (pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)).astype(np.float64)


@pytest.mark.parametrize("file", BUNDLED, ids=lambda file: file.name)
def test_every_bundled_file_is_read_as_pydicom_does_or_told(file):
    index = index_dicom(Dicom(), [file])
    planes = [plane for stack in index.stacks for plane in stack.planes]
    try:
        wanted = expected(file)
    except Exception:
        for _, frame in planes:
            with pytest.raises(DataError):
                READER.read(file, frame)
        assert planes or len(index.faults) == 1 or index.notes == ("1 files are no DICOM images and are left out",)
        return
    assert index.faults == ()
    assert set(index.notes) <= {"1 series do not say their patient; each study is a group of its own"}
    assert sorted(planes) == [(0, frame) for frame in range(len(wanted))]
    for _, frame in planes:
        read = READER.read(file, frame)
        np.testing.assert_allclose(read.pixels, wanted[frame], rtol=1e-6)
        if read.full:
            assert read.full[0] <= read.pixels.min() and read.pixels.max() <= read.full[1]


def test_most_bundled_images_are_read():
    index = index_dicom(Dicom(), BUNDLED)
    assert sum(len(stack.planes) for stack in index.stacks) > 140
    assert index.notes[0] == "29 files are no DICOM images and are left out"
    assert all(": " in fault for fault in index.faults)


def test_streams_are_read_too():
    for name in ("CT_small.dcm", "examples_ybr_color.dcm"):
        with bundled(name).open("rb") as stream:
            np.testing.assert_array_equal(READER.read(stream, 0).pixels, READER.read(bundled(name), 0).pixels)


def test_ct_is_in_hounsfield_units_with_its_range_and_spacing():
    plane = READER.read(bundled("693_J2KI.dcm"))
    assert (plane.units, plane.full, plane.spacing) == ("HU", (-9216, 7167), (0.478516, 0.478516))
    assert plane.pixels.dtype == np.int16
    stored = DicomReader(Dicom(rescale=False)).read(bundled("693_J2KI.dcm"))
    assert (stored.units, stored.full) == ("", (-8192, 8191))
    np.testing.assert_array_equal(stored.pixels - 1024, plane.pixels)


FAULTS = {
    "rtplan.dcm": "holds no pixels",
    "no_meta.dcm": "is no DICOM file",
    "rtstruct.dcm": "lacks the preamble of a DICOM file; write it anew with one (dcmtk: dcmconv --read-dataset)",
    "ExplVR_BigEndNoMeta.dcm": "lacks the preamble of a DICOM file; write it anew with one (dcmtk: dcmconv --read-dataset)",
    "badVR.dcm": "cannot be read as DICOM: invalid literal for int() with base 10: '1A'",
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_wrong_with_a_file_is_told(name):
    assert index_dicom(Dicom(), [bundled(name)]).faults == (f"{name}: {FAULTS[name]}",)


def test_a_decoder_that_is_missing_is_named(monkeypatch):
    decoder = get_decoder("1.2.840.10008.1.2.4.80")
    monkeypatch.setattr(decoder, "_available", {})
    monkeypatch.setattr(decoder, "_unavailable", {"pylibjpeg": ("pylibjpeg>=2.0", "pylibjpeg-libjpeg>=2.1")})
    message = (
        "is compressed as JPEG-LS Lossless Image Compression, which no installed package decodes; "
        'pip install "dinomx-medical-multichannel[decoders]" (pylibjpeg-libjpeg)'
    )
    file = bundled("MR_small_jpeg_ls_lossless.dcm")
    assert index_dicom(Dicom(), [file]).faults == (f"{file.name}: {message}",)
    with pytest.raises(DataError) as raised:
        READER.read(file)
    assert str(raised.value) == message


@pytest.fixture
def make(tmp_path):
    """A function of a name, pixels (H, W) and attributes -> a file."""

    def write(name, pixels=None, **attributes):
        pixels = np.arange(12, dtype=np.uint16).reshape(3, 4) if pixels is None else pixels
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data = Dataset()
        data.file_meta = meta
        data.SOPClassUID, data.SOPInstanceUID, data.Modality = (
            "1.2.840.10008.5.1.4.1.1.2",
            f"1.2.{abs(hash(name))}",
            "MR",
        )
        data.SeriesInstanceUID, data.PatientID = "1.2.3", "P7"
        data.Rows, data.Columns = pixels.shape[-2:]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit = pixels.itemsize * 8, 12, 11
        data.PixelRepresentation = int(pixels.dtype.kind == "i")
        data.PixelData = pixels.tobytes()
        for key, value in attributes.items():
            setattr(data, key, value)
        data.save_as(tmp_path / name, enforce_file_format=True)
        return tmp_path / name

    return write


AXIAL = [1, 0, 0, 0, 1, 0]


def names(index, files):
    return [[files[number].name for number, _ in stack.planes] for stack in index.stacks]


def test_slices_are_ordered_by_where_they_lie(make):
    files = [
        make(f"{name}.dcm", ImagePositionPatient=[0, 0, at], ImageOrientationPatient=AXIAL, InstanceNumber=number)
        for name, at, number in (("a", 5, 1), ("b", -2.5, 3), ("c", 1, 2))
    ]
    index = index_dicom(Dicom(), files)
    assert names(index, files) == [["b.dcm", "c.dcm", "a.dcm"]]
    assert index.notes == () and index.stacks[0].group == "P7"
    assert index.stacks[0].id.startswith("MR-") and index.stacks == index_dicom(Dicom(), files).stacks


def test_oblique_slices_are_ordered_along_their_normal(make):
    tilt = [1, 0, 0, 0, 0.6, 0.8]  # normal (0, -0.8, 0.6)
    files = [
        make(f"{name}.dcm", ImagePositionPatient=position, ImageOrientationPatient=tilt)
        for name, position in (("a", [0, -8, 6]), ("b", [0, 0, 0]), ("c", [50, 6, 8]), ("d", [0, 8, -6]))
    ]
    index = index_dicom(Dicom(), files[:2] + files[3:])
    assert names(index, [*files[:2], files[3]]) == [["d.dcm", "b.dcm", "a.dcm"]]


def test_slices_without_places_are_ordered_by_their_numbers(make):
    files = [make(f"{name}.dcm", InstanceNumber=number) for name, number in (("a", 10), ("b", 9), ("c", 2))]
    index = index_dicom(Dicom(), files)
    assert names(index, files) == [["c.dcm", "b.dcm", "a.dcm"]]
    assert index.notes == ("1 series do not say where their slices lie and are ordered by their numbers",)


def test_localizers_and_other_sizes_are_stacks_of_their_own(make):
    at = [0, 0, 0]
    files = [
        make("a.dcm", ImagePositionPatient=at, ImageOrientationPatient=AXIAL),
        make("b.dcm", ImagePositionPatient=at, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]),
        make("c.dcm", np.zeros((5, 5), np.uint16), ImagePositionPatient=[0, 0, 1], ImageOrientationPatient=AXIAL),
        make("d.dcm", ImagePositionPatient=[0, 0, -1], ImageOrientationPatient=AXIAL),
    ]
    index = index_dicom(Dicom(), files)
    assert names(index, files) == [["d.dcm", "a.dcm"], ["b.dcm"], ["c.dcm"]]
    assert index.notes == ("1 series hold slices of several sizes or orientations; each is a stack of its own",)
    assert len({stack.id for stack in index.stacks}) == 3


def test_phases_are_stacks_of_their_own_and_copies_are_left_out(make, tmp_path):
    files = [
        make(
            f"{at}{phase}.dcm", ImagePositionPatient=[0, 0, at], ImageOrientationPatient=AXIAL, AcquisitionNumber=phase
        )
        for at in (0, 1)
        for phase in (2, 1)
    ]
    (tmp_path / "copy.dcm").write_bytes(files[0].read_bytes())
    index = index_dicom(Dicom(), [*files, tmp_path / "copy.dcm"])
    assert names(index, files) == [["01.dcm", "11.dcm"], ["02.dcm", "12.dcm"]]
    assert index.notes == (
        "1 copies of slices are left out",
        "1 series hold places several times, such as phases; these are stacks of their own",
    )


def item(**attributes):
    data = Dataset()
    for key, value in attributes.items():
        setattr(data, key, value)
    return data


def test_an_enhanced_file_is_ordered_and_scaled_frame_by_frame(make):
    pixels = np.stack([np.full((3, 4), value, np.uint16) for value in (10, 20, 30)])
    frames = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=[0, 0, at])],
            PixelValueTransformationSequence=[item(RescaleSlope=2, RescaleIntercept=at, RescaleType="HU")],
        )
        for at in (7, -1, 3)
    ]
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=AXIAL)],
        PixelMeasuresSequence=[item(PixelSpacing=[0.5, 0.25])],
    )
    file = make(
        "x.dcm",
        pixels,
        NumberOfFrames=3,
        PerFrameFunctionalGroupsSequence=frames,
        SharedFunctionalGroupsSequence=[shared],
    )
    (stack,) = index_dicom(Dicom(), [file]).stacks
    assert stack.planes == ((0, 1), (0, 2), (0, 0))
    planes = [READER.read(file, frame) for _, frame in stack.planes]
    assert [int(plane.pixels[0, 0, 0]) for plane in planes] == [39, 63, 27]
    assert [plane.full for plane in planes] == [(-1, 8189), (3, 8193), (7, 8197)]
    assert (planes[0].units, planes[0].spacing) == ("HU", (0.5, 0.25))


def test_monochrome1_is_turned_round_within_its_range(make):
    pixels = np.array([[0, 4095], [1, 4000]], np.uint16)
    plane = READER.read(make("x.dcm", pixels, PhotometricInterpretation="MONOCHROME1"))
    assert plane.pixels.tolist() == [[[4095, 0], [4094, 95]]] and plane.pixels.dtype == np.uint16
    assert plane.full == (0, 4095)
    signed = np.array([[-2048, 2047]], np.int16)
    assert READER.read(make("y.dcm", signed, PhotometricInterpretation="MONOCHROME1")).pixels.tolist() == [
        [[2047, -2048]]
    ]


def test_bits_above_those_that_are_stored_are_no_pixels(make):
    plane = READER.read(make("x.dcm", np.array([[0, 0x1388]], np.uint16)))  # old files have overlays there
    assert (plane.pixels.tolist(), plane.full) == ([[[0, 0x388]]], (0, 4095))


def test_a_range_takes_in_what_decoders_give_beyond_it():
    header = item(BitsStored=12, BitsAllocated=16, PixelRepresentation=1)
    assert stored_range(header, np.array([-2048, 2047])) == (-2048, 2047)
    assert stored_range(header, np.array([-2049, 2047])) == (-32768, 32767)


def test_a_slope_that_is_no_whole_number_makes_floats(make):
    plane = READER.read(make("x.dcm", RescaleSlope="0.5", RescaleIntercept="-1", RescaleType="US"))
    assert (plane.pixels.dtype, plane.units, plane.full) == (np.float32, "", (-1, 2046.5))
    np.testing.assert_array_equal(plane.pixels[0], np.arange(12).reshape(3, 4) * 0.5 - 1)


def test_a_modality_table_is_applied(make):
    table = item(
        LUTDescriptor=[12, 0, 16],
        ModalityLUTType="OD",
        LUTData=b"".join((i * 100).to_bytes(2, "little") for i in range(12)),
    )
    table["LUTData"].VR, table["LUTDescriptor"].VR = "OW", "US"
    plane = READER.read(make("x.dcm", ModalityLUTSequence=[table]))
    assert (plane.units, plane.full) == ("OD", (0, 65535))
    np.testing.assert_array_equal(plane.pixels[0], np.arange(12).reshape(3, 4) * 100)


def test_pixels_of_a_kind_that_is_not_read_are_refused(make):
    file = make("x.dcm", PhotometricInterpretation="HSV")
    message = "has pixels of the kind HSV, which is not read; convert it to RGB or MONOCHROME2"
    assert index_dicom(Dicom(), [file]).faults == (f"x.dcm: {message}",)


def test_a_file_that_ends_early_is_told(make):
    file = make("x.dcm")
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(
        DataError, match="^cannot be read as DICOM: The number of bytes of pixel data is less than expected"
    ):
        READER.read(file)
