"""Panels as PNG files: each alone, a square of the map a patch of the image, and all of an image on one labelled sheet."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from dinomx_core.training.look.sheet import FAINT, GAP, INK, LINE, PAPER, cut_to, font, wrapped
from dinomx_interpret.panels import Panel

SIDE = 224  # pixels, at least, of the shorter side of a picture that is written
CELL = 260  # pixels of the longer side of a panel on a sheet
COLUMNS = 4
FRAME = ("#ffffff", "#d62728")  # around the patch that others are compared with: seen on dark and on bright


def enlarged(picture: Image.Image) -> Image.Image:
    """A picture as it is, or each of its pixels as a square of several, so that small ones can be looked at."""
    times = max(1, -(-SIDE // min(picture.size)))
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)


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


def sheet(title: str, note: str, picture: Image.Image, panels: Sequence[tuple[Panel, Image.Image]]) -> Image.Image:
    """An image and its panels below a title, each with what it is and how it is read."""
    cells = [("The image", f"{picture.width} x {picture.height} px as the model saw it", "", picture)]
    cells += [(panel.title, panel.told, panel.rule, drawn) for panel, drawn in panels]
    scale = CELL / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    size = size if scale < 1 else picture.size
    cell = max(CELL, size[0])
    texts = [
        [*wrapped(told, cell, font(11)), *(wrapped(rule, cell, font(11)) if rule else [])] for _, told, rule, _ in cells
    ]
    heads = [wrapped(head, cell, font(13)) for head, *_ in cells]
    columns = min(COLUMNS, len(cells))
    width = GAP + columns * (cell + GAP)
    top = [*wrapped(note, width - 2 * GAP, font(12))]
    rows = [range(first, min(first + columns, len(cells))) for first in range(0, len(cells), columns)]
    tall = [
        max(len(heads[n]) for n in row) * LINE + size[1] + max(len(texts[n]) for n in row) * 15 + 2 * GAP
        for row in rows
    ]
    page = Image.new("RGB", (width, GAP + LINE + len(top) * 16 + GAP + sum(tall)), PAPER)
    drawing = ImageDraw.Draw(page)
    drawing.text((GAP, GAP), cut_to(title, width - 2 * GAP, font(16)), INK, font(16))
    for number, line in enumerate(top):
        drawing.text((GAP, GAP + LINE + 4 + number * 16), line, FAINT, font(12))
    y = GAP + LINE + len(top) * 16 + GAP
    for row, height in zip(rows, tall):
        above = max(len(heads[n]) for n in row) * LINE
        for place, n in enumerate(row):
            x = GAP + place * (cell + GAP)
            for number, line in enumerate(heads[n]):
                drawing.text((x, y + above - (len(heads[n]) - number) * LINE), line, INK, font(13))
            drawn = cells[n][3].convert("RGB")
            how = Image.Resampling.LANCZOS if n == 0 else Image.Resampling.NEAREST
            page.paste(drawn.resize(size, how), (x, y + above))
            for number, line in enumerate(texts[n]):
                drawing.text((x, y + above + size[1] + 4 + number * 15), line, FAINT, font(11))
        y += height
    return page
