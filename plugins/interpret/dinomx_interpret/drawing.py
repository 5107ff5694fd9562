"""Panels as PNG files: each alone, a square of the map a patch of the image, and all of an image on one labelled sheet."""

from collections.abc import Sequence

import attrs
import numpy as np
from PIL import Image, ImageDraw

from dinomx_core.training.look.sheet import FAINT, GAP, INK, LINE, PAPER, cut_to, font, wrapped
from dinomx_interpret.panels import Panel

SIDE = 224  # pixels, at least, of the shorter side of a picture that is written
CELL, COLUMNS = 260, 4  # pixels of the longer side of a panel on a sheet, about; panels in a row
SMALL, SWATCH = 15, 10  # pixels: height of a line of small text, side of a square of colour before it
FRAME = ("#ffffff", "#d62728")  # around the patch that others are compared with: seen on dark and on bright


def spread(colours: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """A map (h, w, 3) over a picture of `size` (width, height): each patch covers the pixels that it saw."""
    return Image.fromarray(colours).resize(size, Image.Resampling.NEAREST)


def framed(picture: Image.Image, grid: tuple[int, int], patch: int) -> Image.Image:
    """The picture with a frame around one of the patches."""
    row, column = divmod(patch, grid[1])
    high, wide = picture.height // grid[0], picture.width // grid[1]
    left, top = column * wide, row * high
    drawing = ImageDraw.Draw(picture)
    for out, colour in enumerate(FRAME):
        drawing.rectangle((left - 1 - out, top - 1 - out, left + wide + out, top + high + out), outline=colour)
    return picture


@attrs.frozen(eq=False)
class Cell:
    """A picture on a sheet, with the lines above it, and those below it, each with a colour to show before it or ""."""

    head: tuple[str, ...]
    picture: Image.Image
    lines: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, panel: Panel, picture: Image.Image, width: int) -> "Cell":
        """A panel's texts, wrapped."""
        lines = [(text, colour) for text, colour in panel.legend]
        lines += [(line, "") for text in (panel.told, panel.rule) if text for line in wrapped(text, width, font(11))]
        return cls(tuple(wrapped(panel.title, width, font(13))), picture, tuple(lines))


def sheet(
    title: str, note: str, picture: Image.Image, grid: tuple[int, int], panels: Sequence[Panel], patch: int
) -> Image.Image:
    """An image and its panels below a title, each with what it is and how it is read; on the last one the patch is framed."""
    side = max(1, round(CELL / max(grid)))  # of a patch
    size = (grid[1] * side, grid[0] * side)
    width = max(CELL, size[0])
    seen = Panel("image", "The image", f"{picture.width} x {picture.height} px as the model saw it", "", np.empty(0))
    shrinks = picture.width > size[0]
    whole = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS if shrinks else Image.Resampling.NEAREST)
    cells = [Cell.of(seen, whole, width), *(Cell.of(panel, spread(panel.colours, size), width) for panel in panels)]
    framed(cells[-1].picture, grid, patch)
    columns = min(COLUMNS, len(cells))
    rows = [cells[first : first + columns] for first in range(0, len(cells), columns)]
    wide = GAP + columns * (width + GAP)
    top = wrapped(note, wide - 2 * GAP, font(12))
    y = 2 * GAP + LINE + len(top) * LINE
    page = Image.new("RGB", (wide, y + sum(height_of(row) for row in rows)), PAPER)
    drawing = ImageDraw.Draw(page)
    drawing.text((GAP, GAP), cut_to(title, wide - 2 * GAP, font(16)), INK, font(16))
    for number, line in enumerate(top):
        drawing.text((GAP, GAP + LINE * (number + 1) + 4), line, FAINT, font(12))
    for row in rows:
        for place, cell in enumerate(row):
            put(page, cell, GAP + place * (width + GAP), y + LINE * max(len(other.head) for other in row))
        y += height_of(row)
    return page


def height_of(row: Sequence[Cell]) -> int:
    """Pixels of a row of cells."""
    parts = [(len(cell.head) * LINE, len(cell.lines) * SMALL) for cell in row]
    return max(above for above, _ in parts) + row[0].picture.height + max(below for _, below in parts) + 2 * GAP


def put(page: Image.Image, cell: Cell, left: int, top: int) -> None:
    """A cell on the page, its picture's corner there."""
    drawing = ImageDraw.Draw(page)
    for number, line in enumerate(reversed(cell.head), 1):
        drawing.text((left, top - number * LINE), line, INK, font(13))
    page.paste(cell.picture, (left, top))
    for number, (line, colour) in enumerate(cell.lines):
        y, indent = top + cell.picture.height + 4 + number * SMALL, 0
        if colour:
            drawing.rectangle((left, y + 2, left + SWATCH, y + 2 + SWATCH), fill=colour)
            indent = SWATCH + 6
        drawing.text((left + indent, y), line, FAINT, font(11))
