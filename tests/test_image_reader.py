"""The reader "image": every format in its own numbers, and nothing that is cut silently."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dinomx_core import DataError
from dinomx_core.builtin.data_options import ImageFiles
from dinomx_core.builtin.image_reader import ImageReader, from_pillow
from dinomx_core.training.images import from_plane

KINDS = {2: 4, 3: 2, 4: 6}  # channels -> PNG's colour type


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png16(array, filtered=0, **extra):
    """A 16-bit PNG of (H, W, C), written by hand: Pillow writes none of colour. filtered: 0, or 1 for each byte less the one before."""
    height, width, channels = array.shape
    lines = np.ascontiguousarray(array.astype(">u2")).view(np.uint8).reshape(height, -1)
    if filtered:
        before = np.pad(lines, ((0, 0), (2 * channels, 0)))[:, : lines.shape[1]]
        lines = lines - before
    raw = b"".join(bytes([filtered]) + line.tobytes() for line in lines)
    header = struct.pack(">IIBBBBB", width, height, 16, KINDS[channels], 0, 0, 0)
    more = b"".join(chunk(name.encode(), data) for name, data in extra.items())
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    )


def read(file, **options):
    return ImageReader(ImageFiles(**options)).read(file)


@pytest.fixture
def wide():
    """A function of channels -> (37, 23, C) of all uint16."""
    return lambda channels: np.random.default_rng(0).integers(0, 65536, (37, 23, channels)).astype(np.uint16)


@pytest.mark.parametrize("filtered", [0, 1])
@pytest.mark.parametrize("channels", [2, 3, 4])
def test_png_of_16_bit_colour_keeps_its_16_bits(tmp_path, wide, channels, filtered):
    (tmp_path / "x.png").write_bytes(png16(wide(channels), filtered))
    kept = wide(channels)[:, :, : 1 if channels == 2 else 3].transpose(2, 0, 1)
    for file in (tmp_path / "x.png", io.BytesIO(png16(wide(channels), filtered))):
        pixels = read(file).pixels
        assert pixels.dtype == np.uint16
        np.testing.assert_array_equal(pixels, kept)
    np.testing.assert_array_equal(from_plane(ImageReader(ImageFiles()).read(tmp_path / "x.png")).numpy(), kept)
    with Image.open(tmp_path / "x.png") as image:
        np.testing.assert_array_equal(from_pillow(image), kept)


def test_16_bit_colour_is_turned_as_its_orientation_says(tmp_path, wide):
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn to the right
    (tmp_path / "x.png").write_bytes(png16(wide(3), eXIf=exif.tobytes()[6:]))
    np.testing.assert_array_equal(read(tmp_path / "x.png").pixels, np.rot90(wide(3), -1).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("dtype", "suffix"),
    [("uint8", "png"), ("uint16", "png"), ("bool", "png"), ("int32", "tiff"), ("float32", "tiff"), ("uint8", "bmp")],
)
def test_grey_keeps_its_numbers(tmp_path, dtype, suffix):
    array = (np.random.default_rng(1).random((5, 7)) * (60000 if dtype != "uint8" else 255)).astype(dtype)
    Image.fromarray(array).save(tmp_path / f"x.{suffix}")
    plane = read(tmp_path / f"x.{suffix}")
    assert (plane.pixels.dtype, plane.full, plane.units) == (dtype, None, "")
    np.testing.assert_array_equal(plane.pixels[0], array)


def test_alpha_is_dropped_and_palettes_become_colour(tmp_path):
    for mode, channels in (("RGBA", 3), ("LA", 1), ("P", 3), ("CMYK", 3)):
        file = tmp_path / ("x.tiff" if mode == "CMYK" else "x.png")
        Image.new(mode, (6, 4)).save(file)
        assert read(file).pixels.shape == (channels, 4, 6)


def test_unsigned_32_bit_tiff_does_not_wrap(tmp_path):
    array = np.array([[0, 2**31 + 5], [7, 2**32 - 1]], np.uint32)
    header = struct.pack("<2sHI", b"II", 42, 8 + array.nbytes)
    tags = [(256, 2), (257, 2), (258, 32), (259, 1), (262, 1), (273, 8), (277, 1), (278, 2), (279, array.nbytes)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    (tmp_path / "x.tif").write_bytes(header + array.tobytes() + struct.pack("<H", len(tags)) + entries + bytes(4))
    np.testing.assert_array_equal(read(tmp_path / "x.tif").pixels[0], array)


def test_tiffs_of_which_pillow_has_less_are_refused_with_the_remedy(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    page = Image.new("L", (4, 4))
    page.save(tmp_path / "pages.tiff", save_all=True, append_images=[page, page])
    remedy = 'set `[data.reader] name = "tiff"` (of dinomx-medical-multichannel)'
    with pytest.raises(DataError) as raised:
        read(tmp_path / "pages.tiff")
    assert str(raised.value) == f"is a TIFF of 3 pages, of which this reader would take the first; {remedy}"
    tifffile.imwrite(tmp_path / "deep.tiff", np.zeros((4, 4, 3), np.uint16), photometric="rgb")
    with pytest.raises(DataError) as raised:
        read(tmp_path / "deep.tiff")
    assert str(raised.value) == f"is a TIFF of 16-bit colour, which Pillow cuts to 8 bits; {remedy}"
    tifffile.imwrite(tmp_path / "floats.tiff", np.zeros((4, 4, 3), np.float32), photometric="rgb")
    with pytest.raises(DataError) as raised:
        read(tmp_path / "floats.tiff")
    assert str(raised.value) == (
        "cannot be read as an image: is of no format that Pillow knows; "
        f"if it is a TIFF that Pillow does not know, {remedy}"
    )


def test_bits_give_the_full_range_and_are_held_against_the_pixels(tmp_path):
    Image.fromarray(np.full((4, 6), 4095, np.uint16)).save(tmp_path / "x.png")
    assert read(tmp_path / "x.png", bits=12).full == (0, 4095)
    with pytest.raises(DataError) as raised:
        read(tmp_path / "x.png", bits=10)
    assert str(raised.value) == "holds numbers from 4095 to 4095; bits = 10 says 0 to 1023"
    assert raised.value.key == "bits"
    np.save(tmp_path / "x.npy", np.zeros((2, 2), np.float32))
    with pytest.raises(DataError, match="^holds float32 numbers, which have no bits to count; leave out bits = 8$"):
        read(tmp_path / "x.npy", bits=8)
    with pytest.raises(ValueError, match="must be between 0 and 32, got 33"):
        ImageFiles(bits=33)


@pytest.mark.parametrize(
    ("stored", "given"),
    [
        ("<i2", "int16"),
        (">u2", "uint16"),
        ("int8", "int16"),
        ("float16", "float32"),
        ("int64", "int32"),
        ("f8", "float64"),
        ("bool", "bool"),
    ],
)
def test_arrays_keep_their_numbers(tmp_path, stored, given):
    array = np.arange(24).reshape(2, 3, 4).astype(stored)
    np.save(tmp_path / "x.npy", array)
    last, first = read(tmp_path / "x.npy").pixels, read(tmp_path / "x.npy", axes="CHW").pixels
    assert last.dtype == first.dtype == np.dtype(given)
    np.testing.assert_array_equal(first, array)
    np.testing.assert_array_equal(last, array.transpose(2, 0, 1))


def test_arrays_that_are_no_images_are_refused(tmp_path):
    for array, message in (
        (np.zeros(3), "an image has 2 or 3 dimensions, not 1"),
        (
            np.zeros((2, 2), complex),
            "holds numbers of type complex128; store them as integers of up to 32 bits or as floats",
        ),
        (np.array([[0, 2**40]]), f"holds numbers from 0 to {2**40}, more than 32 bits take; store them as floats"),
    ):
        np.save(tmp_path / "x.npy", array)
        with pytest.raises(DataError) as raised:
            read(tmp_path / "x.npy")
        assert str(raised.value) == message
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(DataError, match="^cannot be read as an image: .*allow_pickle=False"):
        read(tmp_path / "x.npy")


def test_files_that_are_none_are_told(tmp_path):
    with pytest.raises(DataError, match="^cannot be read: No such file or directory$"):
        read(tmp_path / "x.png")
    (tmp_path / "x.png").write_text("not an image")
    with pytest.raises(DataError, match="^cannot be read as an image: is of no format that Pillow knows$"):
        read(tmp_path / "x.png")
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(whole, "png")
    (tmp_path / "x.png").write_bytes(whole.getvalue()[:900])
    with pytest.raises(DataError, match="^cannot be read as an image: "):
        read(tmp_path / "x.png")


def test_a_region_is_cut_out(tmp_path):
    array = np.arange(48, dtype=np.uint8).reshape(6, 8)
    Image.fromarray(array).save(tmp_path / "x.png")
    cut = ImageReader(ImageFiles()).read(tmp_path / "x.png", region=(1, 2, 3, 4)).pixels
    np.testing.assert_array_equal(cut[0], array[1:4, 2:6])


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(("shape", "axes"), [((30, 40, 5), "HWC"), ((5, 30, 40), "CHW"), ((30, 40), "HWC")])
def test_of_an_array_only_a_region_is_read(tmp_path, monkeypatch, shape, axes, order):
    array = np.asarray(np.random.default_rng(0).integers(0, 4000, shape, dtype=np.uint16), order=order)
    np.save(tmp_path / "x.npy", array)
    reader = ImageReader(ImageFiles(axes=axes, bits=12))
    whole = reader.read(tmp_path / "x.npy").pixels
    monkeypatch.setattr("dinomx_core.builtin.image_reader.read_pixels", None)
    for top, left, height, width in ((0, 0, 30, 40), (3, 5, 7, 11), (25, 35, 7, 11)):
        plane = reader.read(tmp_path / "x.npy", 0, (top, left, height, width))
        assert plane.full == (0, 4095)
        assert np.array_equal(plane.pixels, whole[:, top : top + height, left : left + width])


def test_a_region_of_an_array_that_ends_early_is_told(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((30, 40), np.uint16))
    with (tmp_path / "x.npy").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(DataError, match=r"^cannot be read as an image: mmap length is greater than file size$"):
        ImageReader(ImageFiles()).read(tmp_path / "x.npy", 0, (0, 0, 5, 5))
