"""The reader "image": what Pillow decodes and NumPy arrays -> planes in the files' own numbers. No torch."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from dinomx_core.declare.numbers import known_type
from dinomx_core.declare.reading import Plane, PlaneReader, Region, cut
from dinomx_core.errors import DataError

if TYPE_CHECKING:
    from dinomx_core.builtin.data_options import ImageFiles

NUMPY, TIFFS = b"\x93NUMPY", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how files of these formats begin
TIFF_READER = 'set `[data.reader] name = "tiff"` (of dinomx-medical-multichannel)'
# How Pillow reads 16-bit PNG that it cuts to the upper 8 bits -> how it gives the others; of grey with alpha, all of them.
LOWER = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "LA;16B": "RGBA"}
BITS_PER_SAMPLE, SAMPLE_FORMAT, UNSIGNED = 258, 339, 1  # of TIFF


class ImageReader(PlaneReader):
    """Decodes one image a file; keeps nothing."""

    def __init__(self, options: ImageFiles):
        self.bits, self.axes = options.bits, options.axes

    def decode(self, file: Path | IO[bytes], frame: int) -> Plane:
        """The image of a file, turned as its EXIF orientation says and without its alpha channel."""
        return self._plane(read_pixels(file, self.axes))

    def read(self, file: Path | IO[bytes], frame: int = 0, region: Region | None = None) -> Plane:
        """The same, or a region of it; of a NumPy array no more is read than the region."""
        pixels = None if region is None or not isinstance(file, Path) else mapped_region(file, self.axes, region)
        return super().read(file, frame, region) if pixels is None else self._plane(pixels)

    def read_mask(self, file: Path | IO[bytes], frame: int = 0, region: Region | None = None) -> Plane:
        """The same of a mask, of an indexed picture (PNG of mode P, as Pascal VOC and DAVIS have them) its numbers."""
        numbers = indices(file)
        return super().read_mask(file, frame, region) if numbers is None else cut(self._plane(numbers), region)

    def _plane(self, pixels: np.ndarray) -> Plane:
        if not self.bits:
            return Plane(pixels)
        return Plane(within(pixels, self.bits), full=(0, 2**self.bits - 1))


def within(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Pixels that are numbers of so many bits. Raises DataError for others."""
    if pixels.dtype.kind not in "ui":
        raise DataError(f"holds {pixels.dtype} numbers, which have no bits to count; leave out bits = {bits}", "bits")
    low, high = (int(pixels.min()), int(pixels.max())) if pixels.size else (0, 0)
    if low < 0 or high >= 2**bits:
        raise DataError(f"holds numbers from {low} to {high}; bits = {bits} says 0 to {2**bits - 1}", "bits")
    return pixels


def read_pixels(file: Path | IO[bytes], axes: str = "HWC") -> np.ndarray:
    """A file as (C, H, W); `axes` are those of NumPy arrays of three dimensions. Raises DataError when it cannot be read."""
    if isinstance(file, Path):
        try:
            with file.open("rb") as opened:
                return read_pixels(opened, axes)
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror or error}") from None
    start = file.read(8)
    file.seek(0)
    try:
        if start.startswith(NUMPY):
            return from_array(np.load(file, allow_pickle=False), axes)
        with Image.open(file) as image:
            return from_pillow(image)
    except DataError:
        raise
    except Exception as error:  # decoders raise whatever they stumble over
        remedy = f"; if it is a TIFF that Pillow does not know, {TIFF_READER}" if start.startswith(TIFFS) else ""
        what = "is of no format that Pillow knows" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise DataError(f"cannot be read as an image: {what}{remedy}") from None


def indices(file: Path | IO[bytes]) -> np.ndarray | None:
    """The numbers (1, H, W) of an indexed picture, which stand for its colours; None for other files."""
    try:
        with Image.open(file) as image:
            return np.array(ImageOps.exif_transpose(image))[None] if image.mode == "P" else None
    except Exception:  # whoever reads it as an image says why not
        return None
    finally:
        if not isinstance(file, Path):
            file.seek(0)


def mapped_region(file: Path, axes: str, region: Region) -> np.ndarray | None:
    """A region (C, h, w) of a file that is a NumPy array; None for other files. Raises DataError when it cannot be read."""
    try:
        with file.open("rb") as opened:
            if opened.read(len(NUMPY)) != NUMPY:
                return None
        top, left, height, width = region
        array = np.load(file, mmap_mode="r", allow_pickle=False)
        rows = 1 if axes == "CHW" and array.ndim == 3 else 0
        place = (slice(None),) * rows + (slice(top, top + height), slice(left, left + width))
        return from_array(np.array(array[place]), axes)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}") from None
    except Exception as error:  # NumPy raises whatever it stumbles over
        raise DataError(f"cannot be read as an image: {error}") from None


def from_array(array: np.ndarray, axes: str = "HWC") -> np.ndarray:
    """(H, W), or three dimensions as `axes` says -> (C, H, W)."""
    if array.ndim not in (2, 3):
        raise DataError(f"an image has 2 or 3 dimensions, not {array.ndim}")
    planes = array[None] if array.ndim == 2 else array if axes == "CHW" else array.transpose(2, 0, 1)
    return known_type(planes)


def from_pillow(image: Image.Image) -> np.ndarray:
    """A Pillow image, opened or made -> (C, H, W) of its own depth: grey or colour, without alpha."""
    if image.format == "TIFF":
        check_tiff(image)
    wide = deep_colour(image)
    if wide is not None:
        return from_array(wide)
    wrapped = image.mode == "I" and image.format == "TIFF" and unsigned(image)
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I;16", "I;16L", "I;16B", "I", "F", "1", "L", "RGB"):
        pixels = np.array(image)
        return from_array(pixels.view(np.uint32) if wrapped else pixels)
    return from_array(np.array(image.convert("L" if image.mode in ("LA", "La") else "RGB")))


def deep_colour(image: Any) -> np.ndarray | None:
    """A PNG of 16-bit colour, or of 16-bit grey with alpha, as (H, W, C); None for other images. Pillow has the upper bits of such
    pixels only, so that the file is decoded twice."""
    tiles = getattr(image, "tile", None)
    rawmode = tiles[0][3] if tiles and image.format == "PNG" else ""
    if rawmode not in LOWER:
        return None
    image.fp.seek(0)
    upper, lower = (Image.open(io.BytesIO(data)) for data in (image.fp.read(),) * 2)
    lower.tile = [tile._replace(args=LOWER[rawmode]) for tile in lower.tile]
    low = np.array(ImageOps.exif_transpose(lower), np.uint16)
    if rawmode == "LA;16B":
        return low[:, :, 0] << 8 | low[:, :, 1]
    return (np.array(ImageOps.exif_transpose(upper), np.uint16) << 8 | low)[:, :, :3]


def unsigned(image: Any) -> bool:
    """Whether the numbers of a TIFF have no sign; those of 32 bits Pillow gives as if they had one."""
    return image.tag_v2.get(SAMPLE_FORMAT, (UNSIGNED,))[0] == UNSIGNED


def check_tiff(image: Any) -> None:
    """Raise DataError for a TIFF of which Pillow would give less than there is."""
    pages, bits = getattr(image, "n_frames", 1), max(image.tag_v2.get(BITS_PER_SAMPLE, (1,)))
    if pages > 1:
        raise DataError(f"is a TIFF of {pages} pages, of which this reader would take the first; {TIFF_READER}")
    if bits > 8 and len(image.getbands()) > 1:
        raise DataError(f"is a TIFF of {bits}-bit colour, which Pillow cuts to 8 bits; {TIFF_READER}")
