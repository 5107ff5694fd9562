"""Crops put on labelled objects, or where the teacher looks."""

from abc import abstractmethod
from functools import cached_property
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import ndimage

from dinomx_core.training.contracts import Box, Placement
from dinomx_core.training.flow import Item
from dinomx_core.training.regions import Regions, regions_of
from dinomx_core.training.streams import Stream
from dinomx_label_guided.plugin import AttentionGuided, LabelGuided

GUIDED, PLAIN = "guided", "without-object"  # words of the metrics: how a crop came to lie where it does


class Point(NamedTuple):
    """A pixel."""

    row: int
    column: int


class Interest:
    """What may be looked at in an image; what is found out about it is kept for its further crops."""

    def __init__(self, regions: Regions):
        self.regions = regions
        self._parts: dict[int, tuple[np.ndarray | None, int]] = {}

    @cached_property
    def classes(self) -> list[str]:
        """The classes that there are objects of: those of masks by their numbers in order, those of boxes by their names."""
        mask, boxes = self.regions.mask, self.regions.classes
        found = [] if mask is None else torch.unique(mask).tolist()
        names = [] if boxes is None else [self.regions.names[number - 1] for number in torch.unique(boxes).tolist()]
        return list(dict.fromkeys([*(str(number) for number in found if number), *names]))

    def boxes(self, name: str) -> list[list[int]]:
        """A class's boxes: top, left, height, width."""
        boxes, classes = self.regions.boxes, self.regions.classes
        if boxes is None or classes is None or name not in self.regions.names:
            return []
        return boxes[classes == self.regions.names.index(name) + 1].tolist()

    def parts(self, name: str) -> tuple[np.ndarray | None, int]:
        """Connected parts (8 neighbours) of a class's mask, numbered from 1 on (H, W), and how many there are."""
        if self.regions.mask is None or not name.isdecimal():
            return None, 0
        number = int(name)
        if number not in self._parts:
            self._parts[number] = ndimage.label((self.regions.mask == number).numpy(), structure=np.ones((3, 3)))
        return self._parts[number]


class Guided(Placement):
    """Moves some of the first crops so that their centres lie at points of interest; size and aspect stay as they were drawn."""

    def __init__(self, options: LabelGuided | AttentionGuided):
        self.probability = options.probability
        self.off_centre = options.off_centre
        self.counts = {"local": options.locals, "global": options.globals}
        self._last: tuple[Any, Interest | None] = (None, None)

    def __call__(self, item: Item, view: str, number: int, box: Box, stream: Stream) -> tuple[Box, str]:
        """The box around a point of interest, clamped to the image. Raises DataError for regions that do not fit the image."""
        if number >= self.counts.get(view, 0):
            return box, ""
        rng = stream.fresh(f"{view} guide {number}")
        if rng.random() >= self.probability:
            return box, ""
        interest = self.interest(item)
        point = None if interest is None else self.point(interest, rng)
        if point is None:
            return box, PLAIN
        return around(point, box, item.image.shape[-2:], self.off_centre, rng), GUIDED

    def interest(self, item: Item) -> Interest | None:
        """What may be looked at in an image, None where nobody says; read once for all its crops."""
        known, found = self._last
        if known is None or known is not item.regions:
            regions = regions_of(item)
            found = None if regions is None else Interest(regions)
            self._last = item.regions, found
        return found

    @abstractmethod
    def point(self, interest: Interest, rng: Random) -> Point | None:
        """A point of interest, None where there is none."""


class LabelGuidedPlacement(Guided):
    """By masks and boxes."""

    def __init__(self, options: LabelGuided):
        super().__init__(options)
        self.options = options

    def point(self, interest: Interest, rng: Random) -> Point | None:
        """A pixel of an object, of a class drawn by the weights; None where there is no object of a class with weight."""
        classes = {name: self.options.weights.get(name, 1.0) for name in interest.classes}
        classes = {name: weight for name, weight in classes.items() if weight}
        if not classes:
            return None
        name = rng.choices(list(classes), list(classes.values()))[0]
        return drawn(interest.boxes(name), *interest.parts(name), self.options.draw == "objects", rng)


class AttentionGuidedPlacement(Guided):
    """By the teacher's attention."""

    def __init__(self, options: AttentionGuided):
        super().__init__(options)
        self.mass = options.mass

    def __call__(self, item: Item, view: str, number: int, box: Box, stream: Stream) -> tuple[Box, str]:
        """Before there are maps, crops lie where they were drawn."""
        box, word = super().__call__(item, view, number, box, stream)
        return box, "" if word == PLAIN else word

    def point(self, interest: Interest, rng: Random) -> Point | None:
        """A pixel in one of the brightest patches, the brighter the likelier."""
        regions = interest.regions
        if regions.density is None or regions.seen is None:
            return None
        weights = regions.density.flatten().tolist()
        order = sorted(range(len(weights)), key=lambda number: (-weights[number], number))
        kept, held = [], 0.0
        for number in order:
            kept.append(number)
            held += weights[number]
            if held >= self.mass * sum(weights):
                break
        if not held:
            return None
        rows, columns = regions.density.shape
        row, column = divmod(rng.choices(kept, [weights[number] for number in kept])[0], columns)
        top, left, height, width = regions.seen.tolist()
        return Point(
            int(top + height * (row + rng.random()) / rows), int(left + width * (column + rng.random()) / columns)
        )


def drawn(boxes: list[list[int]], parts: np.ndarray | None, count: int, objects: bool, rng: Random) -> Point | None:
    """A pixel of one of the boxes (top, left, height, width), or of one of `count` numbered parts of a mask (H, W): each object as likely
    as the next, or each pixel."""
    areas = [height * width for _, _, height, width in boxes]
    if not objects and parts is not None:
        parts, count = np.minimum(parts, 1), min(count, 1)
        areas += [int(parts.sum())] * count
    sizes = [1] * (len(boxes) + count) if objects else areas
    if not sum(sizes):
        return None
    chosen = rng.choices(range(len(sizes)), sizes)[0]
    if chosen < len(boxes):
        top, left, height, width = boxes[chosen]
        return Point(top + rng.randrange(height), left + rng.randrange(width))
    assert parts is not None
    found = np.flatnonzero(parts == chosen - len(boxes) + 1)
    return Point(*divmod(int(found[rng.randrange(len(found))]), parts.shape[1]))


def around(point: Point, box: Box, size: tuple[int, ...], off_centre: float, rng: Random) -> Box:
    """A box of the same size with a pixel in its middle, or with 1 `off_centre` anywhere in it, moved into the image where it would reach
    over an edge."""
    _, _, height, width = box
    down, across = (
        0.5 + off_centre * (rng.random() - 0.5) for _ in range(2)
    )  # where in the box the pixel lies, as shares of its sides
    top = min(max(0, point.row - int(height * down)), size[0] - height)
    left = min(max(0, point.column - int(width * across)), size[1] - width)
    return top, left, height, width
