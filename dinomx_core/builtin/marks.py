"""Declaration of the data set that adds masks and boxes to another one. No torch."""

import glob
import os
import re
from pathlib import Path
from typing import Any

import attrs

from dinomx_core.declare.facts import DataInfo
from dinomx_core.declare.values import Chosen, option, slot
from dinomx_core.errors import DataError

SIDES = ("left", "top", "width", "height")  # columns of a file of boxes, in pixels; "image" and "class" beside them
PLACES = ("name", "stem")


@attrs.frozen
class Marked:
    """The images of another data set, with masks or boxes from files beside them."""

    images: Chosen = slot("dataset", doc="the images")
    masks: str = option(
        "",
        'where the mask of an image is: "masks/{name}.png", with {name} for the image\'s id without its ending, or {stem} for that without '
        'its folders; "": no masks',
    )
    boxes: str = option(
        "",
        "a CSV, JSON lines or Parquet file with a row a box: image (its id, or that without ending or folders), left, top, width, height "
        'in pixels, and class where there are several; "": no boxes',
    )
    mask_reader: Chosen = slot(
        "reader", "image", "decodes the masks; of an indexed PNG the numbers, not the palette's colours"
    )


@attrs.frozen
class BoxRows:
    """Rows of a file of boxes: image (a name) -> [(left, top, width, height, class number from 1 on)], and the classes' names."""

    of: dict[str, list[tuple[int, int, int, int, int]]]
    classes: tuple[str, ...]


def inspect_marked(options: Marked) -> DataInfo:
    """What the images hold; whether masks are where the pattern says, and boxes can be read. Raises DataError."""
    if not options.masks and not options.boxes:
        raise DataError(
            'names neither masks nor boxes; give masks = "masks/{name}.png", or boxes = "boxes.csv"', "masks"
        )
    if options.masks:
        check_pattern(options.masks)
    classes = read_boxes(options.boxes).classes if options.boxes else ()
    try:
        info = options.images.component.inspect(options.images.options)
    except DataError as error:
        raise DataError(str(error), f"images.{error.key}" if error.key else "images") from None
    return attrs.evolve(info, regions=True, boxes_alone=not options.masks, marked=classes)


def check_pattern(pattern: str) -> None:
    """Raise DataError unless a pattern of masks says how they go by images, and some file is like it."""
    places = re.findall(r"\{(\w*)\}", pattern)
    if not places or set(places) - set(PLACES):
        raise DataError(
            f'"{pattern}" does not say which mask is whose; use {{name}} or {{stem}}: "masks/{{stem}}.png"', "masks"
        )
    loose = glob.escape(re.sub(r"\{\w+\}", "\0", pattern)).replace("\0", "*" if "stem" in places else "**/*")
    if next(glob.iglob(os.path.expanduser(loose), recursive=True), None) is None:
        raise DataError(f'no file is like "{pattern}" (looked in {Path.cwd()})', "masks")


def read_boxes(file: str) -> BoxRows:
    """Read a file of boxes. Raises DataError, which names columns and lines."""
    from dinomx_core.builtin.manifest import read_manifest
    from dinomx_core.builtin.picture_sets import pixels_in, texts

    try:
        rows = read_manifest(Path(file), "image")
    except DataError as error:
        raise DataError(str(error), "boxes") from None
    sides = [pixels_in(rows, name, "boxes").tolist() for name in SIDES]
    named = texts(rows, "class", "boxes") if "class" in rows.columns else ["1"] * len(rows.paths)
    classes = tuple(sorted(set(named), key=lambda name: (len(name), name) if name.isdigit() else (99, name)))
    found: dict[str, list[Any]] = {}
    for image, name, *box in zip(rows.paths, named, *sides):
        found.setdefault(image, []).append((*box, classes.index(name) + 1))
    return BoxRows(found, classes)
