"""The contact sheet as one picture."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from dinomx_core.training.look.rows import WHOLE, Row

GLOBAL, LOCAL, GAP, LINE = 240, 150, 12, 20  # sides of crops, space between them, height of a line of text
PAPER, INK, FAINT = "#ffffff", "#1a1a1a", "#666666"


def sheet(title: str, rule: str, rows: Sequence[Row]) -> Image.Image:
    """Rows below each other, under a title, with the rule of the channels at the end."""
    sides = [GLOBAL if name.startswith("global") else LOCAL for name, _, _ in rows[0].crops]
    width = max(WHOLE + 3 * GAP + sum(side + GAP for side in sides), 640)
    heading = [*wrapped(title, width - 2 * GAP, font(16)), *wrapped(rule, width - 2 * GAP, font(13))]
    tall = [max(row.whole.height, LINE + GLOBAL) + LINE + 2 * GAP for row in rows]
    page = Image.new("RGB", (width, GAP + LINE * len(heading) + GAP + sum(tall)), PAPER)
    drawing, top = ImageDraw.Draw(page), GAP
    for number, line in enumerate(heading):
        drawing.text((GAP, top), line, INK if number == 0 else FAINT, font(16 if number == 0 else 13))
        top += LINE
    top += GAP
    for row, height in zip(rows, tall):
        drawing.line((GAP, top - GAP // 2, width - GAP, top - GAP // 2), "#dddddd")
        drawing.text((GAP, top), cut_to(row.title, width - 2 * GAP, font(13)), INK, font(13))
        page.paste(row.whole, (GAP + (WHOLE - row.whole.width) // 2, top + LINE))
        left = WHOLE + 3 * GAP
        for (name, picture, colour), side in zip(row.crops, sides):
            drawing.text((left, top + LINE), f"{name}, {picture.width} x {picture.height} px", FAINT, font(11))
            framed(page, picture, (left, top + 2 * LINE), side, colour)
            left += side + GAP
        top += height
    return page


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own."""
    return ImageFont.load_default(size)


def wrapped(text: str, width: int, face: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Lines that fit into so many pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and face.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def cut_to(text: str, width: int, face: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """A line that fits, cut at its start, since names differ at their ends."""
    if face.getlength(text) <= width:
        return text
    while text and face.getlength(f"... {text}") > width:
        text = text[1:]
    return f"... {text}"


def enlarged(picture: Image.Image, side: int) -> Image.Image:
    """A picture whose shorter side is `side` pixels at least: as it is, or each of its pixels as a square of several."""
    times = max(1, -(-side // min(picture.size)))
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)


def framed(page: Image.Image, picture: Image.Image, place: tuple[int, int], side: int, colour: str) -> None:
    """A crop, enlarged or made smaller to fit into a square and in its own proportions, in the frame of its box's colour."""
    inner = side - 6
    scale = min(inner / picture.width, inner / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    left, top = place
    ImageDraw.Draw(page).rectangle((left, top, left + size[0] + 5, top + size[1] + 5), outline=colour, width=3)
    page.paste(picture.convert("RGB").resize(size, how), (left + 3, top + 3))
