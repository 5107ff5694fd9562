"""The reader "tiff": planes of OME-TIFF, ImageJ and other files of many pages, in their own numbers. No torch."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import attrs
import numpy as np

from dinomx_core.declare.numbers import known_type
from dinomx_core.declare.reading import Plane, PlaneReader, Region
from dinomx_core.errors import DataError
from dinomx_medical_multichannel.axes import Layout, picked
from dinomx_medical_multichannel.kept import Kept
from dinomx_medical_multichannel.tiff_segments import cut_page

if TYPE_CHECKING:
    from dinomx_medical_multichannel.plugin import Tiff

ROOM, PAGE = 64 << 20, 4000  # bytes of directories that are kept; about what one of a page takes
MILLIMETRES = {"nm": 1e-6, "µm": 1e-3, "um": 1e-3, "mm": 1.0, "cm": 10.0, "m": 1000.0}
GREY, INVERTED, PALETTE = (1, 32844, 32845), 0, 3  # photometric interpretations
COLOURS = (2, 6)  # RGB, and YCbCr that decoders make RGB of
JPEGS = (6, 7, 33007, 34892)  # compressions whose decoders do
ALPHA = (1, 2)  # kinds of extra samples


@attrs.frozen(eq=False)
class Opened:
    """A file whose directories were read; it is closed between calls."""

    tiff: Any
    series: Any
    layout: Layout
    spacing: tuple[float, float] | None
    full: tuple[float, float] | None
    colours: Any  # (3, N) of a palette, None where there is none
    lock: Any


class TiffReader(PlaneReader):
    """Keeps the directories of the files that it read last. Of files that are not compressed, and of tiles and strips, it reads what a
    region needs."""

    def __init__(self, options: Tiff):
        self.options = options
        self.kept: Kept[Opened] = Kept(ROOM)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.options,)

    def decode(self, file: Path | IO[bytes], frame: int) -> Plane:
        """A plane with its channels."""
        return self.read(file, frame)

    def read(self, file: Path | IO[bytes], frame: int = 0, region: Region | None = None) -> Plane:
        """The same, or a region of it."""
        try:
            opened = self._opened(file)
            with opened.lock:
                pixels = cut(opened, frame, region, file if isinstance(file, Path) else None)
            pixels, full = as_meant(pixels, opened)
            return Plane(known_type(picked(pixels, self.options.channels)), full=full, spacing=opened.spacing)
        except DataError:
            raise
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror or error}") from None
        except Exception as error:  # tifffile raises whatever it stumbles over
            raise DataError(told(error)) from None

    def _opened(self, file: Path | IO[bytes]) -> Opened:
        if not isinstance(file, Path):
            return open_tiff(file, self.options)
        about = file.stat()

        def fresh() -> tuple[Opened, int]:
            opened = open_tiff(file, self.options)
            opened.tiff.close()
            return opened, PAGE * (2 + len(opened.series.pages))

        return self.kept.get((os.fspath(file), about.st_size, about.st_mtime_ns), fresh)


def told(error: Exception) -> str:
    """What is wrong, as a person is told; with what to install where a decoder is missing."""
    why = (str(error) or type(error).__name__).strip().splitlines()[0]
    remedy = "; pip install imagecodecs" if "imagecodecs" in why else ""
    return f"cannot be read as TIFF: {why}{remedy}"


def open_tiff(file: Path | IO[bytes], options: Tiff) -> Opened:
    """A file's directories. Raises DataError for a series, axes or pixels that cannot be read, and whatever tifffile stumbles over."""
    from tifffile import TIFF, TiffFile

    tiff: Any = TiffFile(file)
    try:
        count = len(tiff.series)
        if not 0 <= options.series < count:
            raise DataError(f"series = {options.series}: it has {count} series, counted from 0", "series")
        series = tiff.series[options.series]
        page = series.keyframe
        if int(page.photometric) not in (*GREY, INVERTED, PALETTE, *COLOURS) or (
            int(page.photometric) == 6 and int(page.compression) not in JPEGS
        ):
            raise DataError(
                f"has pixels of the kind {page.photometric.name}, which is not read; convert it to RGB or grey"
            )
        try:
            TIFF.DECOMPRESSORS[page.compression]
        except KeyError:
            raise DataError(
                f"is compressed as {page.compression.name}, which no installed package decodes; pip install imagecodecs"
            ) from None
        layout = Layout(letters(series, options.pages), tuple(series.shape)).named(options.axes)
        spacing, bits = ome(tiff, options.series)
        bits = bits or (page.bitspersample if page.bitspersample < 8 * page.dtype.itemsize else 0)
        whole = page.dtype.kind == "u" and 1 < bits < 8 * page.dtype.itemsize
        colours = page.colormap if int(page.photometric) == PALETTE else None
        return Opened(tiff, series, layout, spacing, (0, 2**bits - 1) if whole else None, colours, threading.Lock())
    except BaseException:
        tiff.close()
        raise


def letters(series: Any, pages: str) -> str:
    """A series' axes; pages of which nothing more is known (I, Q) are channels where the option says so."""
    axes = series.axes
    unknown = [axis for axis in axes if axis in "IQ"]
    return axes.replace(unknown[0], "C") if pages == "channels" and len(unknown) == 1 and "C" not in axes else axes


def ome(tiff: Any, number: int) -> tuple[tuple[float, float] | None, int]:
    """What OME-XML says of a series: (row, column) millimetres, and significant bits or 0."""
    if not tiff.is_ome:
        return None, 0
    found = re.findall(r"<(?:\w+:)?Pixels\s[^>]*>", tiff.ome_metadata or "")
    if number >= len(found):
        return None, 0
    said = dict(re.findall(r'(\w+)="([^"]*)"', found[number]))
    sides = [side(said, axis) for axis in "YX"]
    spacing = (sides[0], sides[1]) if all(sides) else None
    bits = said.get("SignificantBits", "0")
    return spacing, int(bits) if bits.isdigit() else 0


def side(said: dict[str, str], axis: str) -> float:
    """Millimetres of a pixel along an axis; 0 where they are not known."""
    unit = said.get(f"PhysicalSize{axis}Unit", "µm").replace("&#181;", "µ").replace("μ", "µ")
    try:
        return max(0.0, float(said[f"PhysicalSize{axis}"])) * MILLIMETRES.get(unit, 0.0)
    except (KeyError, ValueError):
        return 0.0


def cut(opened: Opened, frame: int, region: Region | None, file: Path | None) -> np.ndarray:
    """A plane, or a region of it, as (C, H, W) of stored numbers."""
    layout, series = opened.layout, opened.series
    place = layout.at(frame, region)
    if file is not None and series.dataoffset is not None:
        kind = np.dtype(series.dtype).newbyteorder(opened.tiff.byteorder)
        whole = np.memmap(file, kind, "r", series.dataoffset, layout.shape)
        return layout.planes(np.array(whole[place]))
    outer = len(layout.axes) - len(series.keyframe.shape)
    if set("YX") <= set(layout.axes[outer:]) and len(series.pages) == int(np.prod(layout.shape[:outer], dtype=int)):
        numbers = np.arange(len(series.pages)).reshape(layout.shape[:outer])[place[:outer]]
        pages = [read_page(series.pages[number], place[outer:]) for number in np.ravel(numbers)]
        inner = pages[0].shape
        return layout.planes(np.stack(pages).reshape(*np.shape(numbers), *inner))
    opened.tiff.filehandle.open()
    try:
        return layout.planes(series.asarray()[place])
    finally:
        if file is not None:
            opened.tiff.close()


def read_page(page: Any, place: tuple[Any, ...]) -> np.ndarray:
    """A page, or what stands at a place of it; zeros where the file leaves one out."""
    if page is None:
        raise DataError("lacks one of its pages")
    handle = page.parent.filehandle
    closed = handle.closed
    handle.open()
    try:
        return cut_page(page, place)
    finally:
        if closed:
            handle.close()


def as_meant(pixels: np.ndarray, opened: Opened) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Stored numbers -> grey with higher as brighter, colours of a palette, channels without alpha; and their full range."""
    page, full = opened.series.keyframe, opened.full
    kind = int(page.photometric)
    if opened.colours is not None:
        colours = opened.colours[:, pixels[0]]
        return (colours // 257).astype(np.uint8) if not (opened.colours % 257).any() else colours, None
    if kind == INVERTED and pixels.dtype.kind in "bu":
        return ~pixels if full is None else (int(full[1]) - pixels).astype(pixels.dtype), full
    extra = tuple(getattr(page, "extrasamples", ()) or ())
    if "S" in opened.layout.axes and extra and int(extra[-1]) in ALPHA and len(extra) == 1:
        samples = opened.layout.size("S")
        groups = pixels.reshape(-1, samples, *pixels.shape[-2:])
        pixels = groups[:, :-1].reshape(-1, *pixels.shape[-2:])
    return pixels, full
