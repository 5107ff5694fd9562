"""Crops put on labelled objects."""

from random import Random
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from dinomx_core.training.contracts import Box, Placement
from dinomx_core.training.flow import Item
from dinomx_core.training.regions import Regions, regions_of
from dinomx_core.training.streams import Stream
from dinomx_label_guided.plugin import LabelGuided

GUIDED, PLAIN = "guided", "without-object"  # how a crop came to lie where it does


class Point(NamedTuple):
    """A pixel."""

    row: int
    column: int


class LabelGuidedPlacement(Placement):
    """Moves some of the first crops so that their centres lie in objects; size and aspect stay as they were drawn."""

    def __init__(self, options: LabelGuided):
        self.options = options
        self.counts = {"local": options.locals, "global": options.globals}

    def __call__(self, item: Item, view: str, number: int, box: Box, stream: Stream) -> tuple[Box, str]:
        """The box around an object's pixel, clamped to the image. Raises DataError for regions that do not fit the image."""
        if number >= self.counts.get(view, 0):
            return box, ""
        rng = stream.fresh(f"{view} guide {number}")
        if rng.random() >= self.options.probability:
            return box, ""
        regions = regions_of(item)
        point = None if regions is None else self.point(regions, rng)
        if point is None:
            return box, PLAIN
        return around(point, box, item.image.shape[-2:]), GUIDED

    def point(self, regions: Regions, rng: Random) -> Point | None:
        """A pixel of an object, of a class drawn by the weights; None where there is no object of a class with weight."""
        classes = {number: self.weight(number, regions) for number in numbers_in(regions)}
        classes = {number: weight for number, weight in classes.items() if weight}
        if not classes:
            return None
        number = rng.choices(list(classes), list(classes.values()))[0]
        boxes = (
            []
            if regions.boxes is None or regions.classes is None
            else regions.boxes[regions.classes == number].tolist()
        )
        pixels = None if regions.mask is None else regions.mask == number
        return drawn(boxes, pixels, self.options.draw == "objects", rng)

    def weight(self, number: int, regions: Regions) -> float:
        """How often a class is drawn, by its name or its number."""
        name = regions.names[number - 1] if 0 < number <= len(regions.names) else ""
        weights = self.options.weights
        return weights.get(name, weights.get(str(number), 1.0))


def numbers_in(regions: Regions) -> list[int]:
    """The classes that an image has objects of, in order."""
    found = set() if regions.mask is None else set(torch.unique(regions.mask).tolist())
    found |= set() if regions.classes is None else set(regions.classes.tolist())
    return sorted(found - {0})


def drawn(boxes: list[list[int]], pixels: Tensor | None, objects: bool, rng: Random) -> Point | None:
    """A pixel of one of the boxes (top, left, height, width), or of what `pixels` (H, W) marks: each object as likely as the next, or each
    pixel."""
    areas = [height * width for _, _, height, width in boxes]
    parts, count = (
        (None, 0) if pixels is None else objects_in(pixels) if objects else (pixels.numpy().astype(np.int32), 1)
    )
    sizes = [1] * (len(boxes) + count) if objects else areas + ([] if pixels is None else [int(pixels.sum())])
    if not sum(sizes):
        return None
    chosen = rng.choices(range(len(sizes)), sizes)[0]
    if chosen < len(boxes):
        top, left, height, width = boxes[chosen]
        return Point(top + rng.randrange(height), left + rng.randrange(width))
    found = np.flatnonzero(parts == chosen - len(boxes) + 1)
    assert parts is not None
    row, column = divmod(int(found[rng.randrange(len(found))]), parts.shape[1])
    return Point(row, column)


def objects_in(pixels: Tensor) -> tuple[np.ndarray, int]:
    """Connected parts (8 neighbours) of a mask (H, W) bool: their numbers from 1 on (H, W), and how many there are."""
    parts, count = ndimage.label(pixels.numpy(), structure=np.ones((3, 3)))
    return parts, count


def around(point: Point, box: Box, size: tuple[int, ...]) -> Box:
    """A box of the same size with its centre at a pixel, moved into the image where it would reach over an edge."""
    _, _, height, width = box
    top = min(max(0, point.row - height // 2), size[0] - height)
    left = min(max(0, point.column - width // 2), size[1] - width)
    return top, left, height, width
