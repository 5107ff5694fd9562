"""The reader "tiff", against tifffile used directly."""

import io
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile

from dinomx_core import DataError
from dinomx_medical_multichannel.axes import Layout
from dinomx_medical_multichannel.plugin import Tiff, index_tiff
from dinomx_medical_multichannel.tiff import TiffReader


@pytest.fixture
def save(tmp_path):
    """A function of an array and how it is written -> a file."""

    def write(array, name="x.tif", **how):
        tifffile.imwrite(tmp_path / name, array, **how)
        return tmp_path / name

    return write


def some(shape, dtype="uint16"):
    return (np.random.default_rng(0).random(shape) * 60000).astype(dtype)


def planes(file, **options):
    """All planes of all stacks."""
    index = index_tiff(Tiff(**options), [file])
    assert index.faults == ()
    reader = TiffReader(Tiff(**options))
    return [[reader.read(file, frame).pixels for _, frame in stack.planes] for stack in index.stacks]


@pytest.mark.parametrize(
    "how", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"bigtiff": True}, {"byteorder": ">"}], ids=str
)
@pytest.mark.parametrize(
    ("axes", "shape", "order"),
    [
        ("CYX", (3, 40, 50), "CYX"),
        ("ZCYX", (4, 3, 40, 50), "ZCYX"),
        ("CTYX", (2, 5, 40, 50), "TCYX"),
        ("TZYX", (2, 3, 40, 50), "TZYX"),
    ],
)
def test_ome_tiff_gives_channels_and_planes(save, axes, shape, order, how):
    data = some(shape)
    file = save(data, "x.ome.tif", metadata={"axes": axes}, **how)
    wanted = np.moveaxis(data, [axes.index(axis) for axis in order], range(len(order)))
    found = planes(file)
    if axes == "CYX":
        np.testing.assert_array_equal(found[0][0], wanted)
    elif axes == "TZYX":
        np.testing.assert_array_equal(np.array(found)[:, :, 0], wanted)
        assert [stack.id for stack in index_tiff(Tiff(), [file]).stacks] == ["x.ome.tif 1", "x.ome.tif 2"]
    else:
        np.testing.assert_array_equal(np.array(found[0]), wanted)
    assert found[0][0].dtype == np.uint16


def test_imagej_files_tell_their_axes(save):
    data = some((3, 4, 2, 20, 30))
    found = planes(save(data, imagej=True, metadata={"axes": "TZCYX"}))
    np.testing.assert_array_equal(np.array(found), data)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float32", "float64", "bool"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_numbers_stay_as_they_are(save, dtype, compression):
    data = some((20, 30), dtype)
    ((pixels,),) = planes(save(data, compression=compression, photometric="minisblack"))
    assert pixels.dtype == dtype
    np.testing.assert_array_equal(pixels[0], data)


def test_colour_keeps_16_bits_and_loses_its_alpha(save):
    data = some((20, 30, 4))
    for planar, array in (("contig", data), ("separate", data.transpose(2, 0, 1))):
        ((pixels,),) = planes(save(array, photometric="rgb", planarconfig=planar))
        np.testing.assert_array_equal(pixels, data.transpose(2, 0, 1)[:3])
    ((pixels,),) = planes(save(data, photometric="minisblack", planarconfig="contig"))
    assert pixels.shape == (4, 20, 30)


def test_many_channels_are_read_and_picked(save):
    data = some((200, 12, 14))
    file = save(data, photometric="minisblack", metadata=None)
    assert [pixels.shape for pixels in planes(file)[0]] == [(1, 12, 14)] * 200
    ((pixels,),) = planes(file, pages="channels")
    np.testing.assert_array_equal(pixels, data)
    ((pixels,),) = planes(file, pages="channels", channels=[7, 199, 0])
    np.testing.assert_array_equal(pixels, data[[7, 199, 0]])
    index = index_tiff(Tiff(pages="channels", channels=[200]), [file])
    assert index.faults == ("x.tif: channels: there is no channel 200; it has 200, counted from 0",)


def test_an_image_of_several_files_is_read_once(tmp_path):
    data = some((2, 2, 20, 30))  # channels, depths
    names = ["a.ome.tif", "b.ome.tif"]
    planes_of = "".join(
        f'<TiffData FirstC="{c}" FirstZ="{z}" IFD="{z}" PlaneCount="1"><UUID FileName="{names[c]}">urn:uuid:{c}</UUID></TiffData>'
        for c in range(2)
        for z in range(2)
    )
    for number, name in enumerate(names):
        about = (
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{number}"><Image ID="Image:0">'
            '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="30" SizeY="20" SizeZ="2" SizeC="2" SizeT="1">'
            f'<Channel ID="C:0"/><Channel ID="C:1"/>{planes_of}</Pixels></Image></OME>'
        )
        how = {"photometric": "minisblack", "metadata": None, "compression": "zlib"}
        tifffile.imwrite(tmp_path / name, data[number], description=about, **how)
    files = [tmp_path / name for name in names]
    index = index_tiff(Tiff(), files)
    assert [stack.planes for stack in index.stacks] == [((0, 0), (0, 1))]
    assert index.notes == ("1 files are parts of images that begin in other files, and are read with those",)
    reader = TiffReader(Tiff())
    for depth in range(2):
        for region in (None, (3, 4, 5, 6)):
            top, left, height, width = region or (0, 0, 20, 30)
            pixels = reader.read(files[0], depth, region).pixels
            np.testing.assert_array_equal(pixels, data[:, depth, top : top + height, left : left + width])


def test_axes_can_be_said(save):
    data = some((6, 20, 30))
    file = save(data, photometric="minisblack")
    ((pixels,),) = planes(file, axes="CYX")
    np.testing.assert_array_equal(pixels, data)
    turned = planes(file, axes="YXC")[0][0]
    np.testing.assert_array_equal(turned, data.transpose(2, 0, 1))
    packed = save(data, "packed.tif", photometric="minisblack", compression="zlib")
    np.testing.assert_array_equal(planes(packed, axes="YXC")[0][0], turned)
    wrong = {
        "YX": 'axes = "YX" names 2 axes, but there are 3: QYX (6, 20, 30)',
        "ZCT": 'axes "ZCT" are no image: they need Y and X, and each letter once',
    }
    for axes, message in wrong.items():
        assert index_tiff(Tiff(axes=axes), [file]).faults == (f"x.tif: {message}",)
        with pytest.raises(DataError) as raised:
            TiffReader(Tiff(axes=axes)).read(file)
        assert (str(raised.value), raised.value.key) == (message, "axes")


def test_a_series_is_picked_and_others_are_told(tmp_path):
    small, large = some((10, 12)), some((20, 30))
    with tifffile.TiffWriter(tmp_path / "x.tif") as writer:
        for array in (small, large):
            writer.write(array, photometric="minisblack", metadata=None)
    index = index_tiff(Tiff(series=1), [tmp_path / "x.tif"])
    assert index.notes == ("1 files hold several series, of which series = 1 is read",)
    np.testing.assert_array_equal(TiffReader(Tiff(series=1)).read(tmp_path / "x.tif").pixels[0], large)
    assert index_tiff(Tiff(series=2), [tmp_path / "x.tif"]).faults == (
        "x.tif: series = 2: it has 2 series, counted from 0",
    )


REGIONS = [(0, 0, 5, 5), (13, 20, 20, 25), (33, 37, 17, 33), (0, 0, 50, 70), (40, 0, 10, 70)]
HOWS = {
    "plain": {},
    "strips": {"compression": "zlib", "rowsperstrip": 7},
    "tiles": {"tile": (16, 32), "compression": "zlib", "predictor": True},
    "jpeg": {"tile": (16, 32), "compression": "jpeg"},
}


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("kind", ["grey", "contig", "separate"])
def test_a_region_is_what_the_whole_has_there(save, kind, how, region):
    options = dict(HOWS[how])
    shape = {"grey": (2, 50, 70), "contig": (2, 50, 70, 3), "separate": (2, 3, 50, 70)}[kind]
    if kind != "grey":
        options |= {"photometric": "rgb", "planarconfig": kind}
    elif how != "jpeg":
        options["photometric"] = "minisblack"
    data = (np.random.default_rng(0).random(shape) * 255).astype(np.uint8)
    file = save(data, **options)
    reader = TiffReader(Tiff())
    whole = tifffile.imread(file)[1]
    whole = whole[None] if kind == "grey" else whole.transpose(2, 0, 1) if kind == "contig" else whole
    top, left, height, width = region
    np.testing.assert_array_equal(reader.read(file, 1).pixels, whole)
    cut = reader.read(file, 1, region).pixels
    np.testing.assert_array_equal(cut, whole[:, top : top + height, left : left + width])


def test_a_region_decodes_only_the_tiles_that_it_touches(save, monkeypatch):
    file = save(some((256, 256)), tile=(32, 32), compression="zlib")
    read = []
    real = tifffile.FileHandle.read
    reader = TiffReader(Tiff())
    reader.read(file, 0, (0, 0, 1, 1))
    monkeypatch.setattr(tifffile.FileHandle, "read", lambda handle, size=-1: read.append(size) or real(handle, size))
    reader.read(file, 0, (33, 33, 40, 20))
    assert len(read) == 2


def test_spacing_and_bits_come_from_ome(save):
    about = {
        "axes": "CYX",
        "PhysicalSizeX": 0.25,
        "PhysicalSizeY": 500,
        "PhysicalSizeYUnit": "nm",
        "SignificantBits": 12,
    }
    file = save(some((2, 20, 30)) // 20, "x.ome.tif", metadata=about)
    plane = TiffReader(Tiff()).read(file)
    assert plane.spacing == pytest.approx((5e-4, 2.5e-4))
    assert plane.full == (0, 4095)


def test_twelve_bits_are_read_with_their_range(save):
    pytest.importorskip("imagecodecs")
    from imagecodecs import packints_encode

    data = some((4, 6)) // 15
    file = save(np.zeros((4, 9), np.uint8), photometric="minisblack", metadata=None)
    raw = bytearray(file.read_bytes())
    with tifffile.TiffFile(file) as tiff:
        tags = tiff.pages[0].tags
        start = tiff.pages[0].dataoffsets[0]
        for tag, value in (("ImageWidth", 6), ("BitsPerSample", 12)):
            raw[tags[tag].valueoffset : tags[tag].valueoffset + 2] = value.to_bytes(2, "little")
    raw[start : start + 36] = packints_encode(data, 12, runlen=6)
    file.write_bytes(raw)
    plane = TiffReader(Tiff()).read(file)
    assert (plane.full, plane.pixels.dtype) == ((0, 4095), np.uint16)
    np.testing.assert_array_equal(plane.pixels[0], data)


def test_palettes_become_colour_and_white_is_zero_is_turned_round(save):
    indices = (np.arange(24).reshape(4, 6)).astype(np.uint8)
    colours = (np.random.default_rng(0).integers(0, 256, (3, 256)) * 257).astype(np.uint16)
    ((pixels,),) = planes(save(indices, photometric="palette", colormap=colours))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, colours[:, indices] // 257)
    ((pixels,),) = planes(save(indices, photometric="miniswhite"))
    np.testing.assert_array_equal(pixels[0], 255 - indices)


def test_streams_threads_and_copies_read_the_same(save):
    data = some((8, 40, 50))
    file = save(data, photometric="minisblack", compression="zlib")
    reader = TiffReader(Tiff())
    with ThreadPoolExecutor(8) as pool:
        for number, plane in enumerate(pool.map(lambda n: reader.read(file, n % 8).pixels[0], range(80))):
            np.testing.assert_array_equal(plane, data[number % 8])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(reader)).read(file, 3).pixels[0], data[3])
    np.testing.assert_array_equal(reader.read(io.BytesIO(file.read_bytes()), 5).pixels[0], data[5])
    plain = save(data, "plain.tif", photometric="minisblack")
    np.testing.assert_array_equal(
        reader.read(io.BytesIO(plain.read_bytes()), 5, (1, 2, 3, 4)).pixels[0], data[5, 1:4, 2:6]
    )


def test_what_is_wrong_with_a_file_is_told(save, tmp_path, monkeypatch):
    file = save(some((64, 64)), compression="zlib")
    (tmp_path / "text.tif").write_text("no image")
    (tmp_path / "short.tif").write_bytes(file.read_bytes()[:3000])
    lab = save(some((20, 30, 3), np.uint8), "lab.tif", photometric="cielab")
    reader = TiffReader(Tiff())
    assert index_tiff(Tiff(), [tmp_path / "text.tif", lab, tmp_path / "lost.tif"]).faults == (
        "text.tif: cannot be read as TIFF: not a TIFF file: header=b'no i'",
        "lab.tif: has pixels of the kind CIELAB, which is not read; convert it to RGB or grey",
        "lost.tif: cannot be read: No such file or directory",
    )
    for name in ("text.tif", "short.tif", "lab.tif", "lost.tif"):
        with pytest.raises(DataError):
            reader.read(tmp_path / name)
    with pytest.raises(DataError, match=r"^has no plane 1: its shape is \(64, 64\) \(YX\)$"):
        reader.read(file, 1)
    monkeypatch.setattr(type(tifffile.TIFF.DECOMPRESSORS), "__getitem__", lambda codecs, key: {}[key])
    message = "x.tif: is compressed as ADOBE_DEFLATE, which no installed package decodes; pip install imagecodecs"
    assert index_tiff(Tiff(), [file]).faults == (message,)


def test_axes_are_laid_out_by_letter():
    layout = Layout("TZCYXS", (2, 3, 4, 5, 6, 3))
    assert layout.at(4, (1, 2, 3, 3)) == (1, 1, slice(None), slice(1, 4), slice(2, 5), slice(None))
    assert [stack.planes for stack in layout.stacks(7, "x")] == [((7, 0), (7, 1), (7, 2)), ((7, 3), (7, 4), (7, 5))]
    array = np.random.default_rng(0).random(layout.shape)
    np.testing.assert_array_equal(
        layout.planes(array[layout.at(4, None)]), array[1, 1].transpose(0, 3, 1, 2).reshape(12, 5, 6)
    )
