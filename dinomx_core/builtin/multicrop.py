"""Multi-crop: where to crop is drawn apart from what is done to the pixels, each from a stream of its own."""

import math
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import torch
from torch import Tensor

from dinomx_core.builtin.crops import Crops, MultiCrop
from dinomx_core.declare.values import Size
from dinomx_core.training import pixels as px
from dinomx_core.training.construct import construct
from dinomx_core.training.contracts import Augmentation, Placement
from dinomx_core.training.flow import Crop, Item
from dinomx_core.training.streams import Stream

TRIES = 10


def draw_box(rng: Random, height: int, width: int, crops: Crops) -> tuple[int, int, int, int]:
    """Top, left, height, width of a crop whose area share is uniform and whose aspect is log-uniform (Szegedy et al. 2015);
    after ten boxes that do not fit, the largest centred one of an allowed aspect."""
    low, high = math.log(crops.aspect[0]), math.log(crops.aspect[1])
    for _ in range(TRIES):
        area = height * width * rng.uniform(*crops.area)
        aspect = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return rng.randint(0, height - h), rng.randint(0, width - w), h, w
    aspect = min(max(width / height, crops.aspect[0]), crops.aspect[1])
    h, w = min(height, round(width / aspect)), min(width, round(height * aspect))
    return (height - h) // 2, (width - w) // 2, h, w


def change_pixels(image: Tensor, rng: Random, crops: Crops, number: int) -> Tensor:
    """Jitter, grey, blur, solarise on (C, size, size) float32 over 0..1. Every draw is made whether it is used or not, so
    that switching one operation off moves no other."""
    colour = image.shape[0] == 3
    jitter = rng.random() < crops.jitter
    order = rng.sample(range(4), 4)
    brightness, contrast, saturation = (
        rng.uniform(max(0.0, 1 - spread), 1 + spread) for spread in (crops.brightness, crops.contrast, crops.saturation)
    )
    hue = rng.uniform(-crops.hue, crops.hue)
    grey = rng.random() < crops.grey
    blur = rng.random() < crops.blur[number % len(crops.blur)]
    sigma = rng.uniform(*crops.blur_sigma)
    solarize = rng.random() < crops.solarize[number % len(crops.solarize)]
    if jitter:
        for operation in order:
            if operation == 0 and crops.brightness:
                image = px.brightness(image, brightness)
            elif operation == 1 and crops.contrast:
                image = px.contrast(image, contrast)
            elif operation == 2 and crops.saturation and colour:
                image = px.saturation(image, saturation)
            elif operation == 3 and crops.hue and colour:
                image = px.hue(image, hue)
    if grey and colour:
        image = px.grey(image).expand(3, -1, -1)
    if blur:
        image = px.blur(image, sigma)
    return px.solarize(image) if solarize else image


def some_channels(item: Item, chosen: list[int]) -> Item:
    """The item with some of the channels that it has."""
    known = range(len(item.image)) if item.channels is None else item.channels
    return replace(item, image=item.image[chosen], channels=tuple(known[number] for number in chosen))


@dataclass
class Place:
    """Where a crop lies: top, left, height, width in pixels of the image, and whether it is flipped."""

    box: tuple[int, int, int, int]
    flip: bool
    vertical: bool
    placed: str = ""

    def cut(self, image: Tensor, size: Size) -> Tensor:
        """(C, height, width) of `size`, float32 over 0..1, resized in the image's own depth."""
        top, left, height, width = self.box
        cut = px.to_float(px.resize(image[:, top : top + height, left : left + width], (size.height, size.width)))
        axes = [axis for axis, wanted in ((-1, self.flip), (-2, self.vertical)) if wanted]
        return torch.flip(cut, axes) if axes else cut

    @property
    def signed(self) -> tuple[float, float, float, float]:
        """As `Crop.box` has it."""
        top, left, height, width = self.box
        return (
            float(top),
            float(left),
            float(-height if self.vertical else height),
            float(-width if self.flip else width),
        )


class MultiCropAugmentation(Augmentation):
    """Crops, resizes in the image's own depth, flips, changes the pixels, normalises."""

    def __init__(self, options: MultiCrop, channels: int):
        self.options = options
        self.sets = [("global", options.globals)]
        if options.locals is not None and options.locals.count:
            self.sets.append(("local", options.locals))
        self.where: Placement | None = None if options.where is None else construct(options.where)

    def __call__(self, item: Item, stream: Stream) -> dict[str, list[Crop]]:
        """The crops of one image."""
        sizes, views = self.sizes(stream), {}
        if self.options.channels == "one":
            item = some_channels(item, [stream.purpose("channel").randrange(len(item.image))])
        for name, crops in self.sets:
            places = [self.place(item, stream, name, crops, number) for number in range(crops.count)]
            seen = self.sampled(item, stream, name)
            views[name] = self.crops(seen, stream, name, crops, places, sizes[name], distorted=True)
            if name == "global" and self.options.gram is not None:
                # The same draws once more: a view of its own changes nothing of the others.
                distorted = self.options.gram.distorted
                views["gram"] = self.crops(seen, stream, name, crops, places, sizes["gram"], distorted)
        return views

    def sampled(self, item: Item, stream: Stream, view: str) -> Item:
        """The image with those of its channels that a view has, the same for all images of a step."""
        which = self.options.channels
        if which != "each" and not (which == "locals" and view == "local"):
            return item
        draw, count = stream.step.fresh(f"{view} channels"), len(item.image)
        return some_channels(item, sorted(draw.sample(range(count), draw.randint(1, count))))

    def sizes(self, stream: Stream) -> dict[str, Size]:
        """Size of each view's crops, the same for all images of a step."""
        options = self.options
        tables = {"global": options.globals, "local": options.locals, "gram": options.gram}
        result = {name: table.size for name, table in tables.items() if table is not None}
        if options.sizes:
            shares = [mixed.share for mixed in options.sizes]
            mixed = stream.step.fresh("sizes").choices(options.sizes, shares)[0]
            given = {"global": mixed.globals, "local": mixed.locals, "gram": mixed.gram}
            result.update({name: size for name, size in given.items() if size})
        return result

    def place(self, item: Item, stream: Stream, name: str, crops: Crops, number: int) -> Place:
        """Box and flips, from the purpose "box"; a placement moves the box."""
        where = stream.purpose(f"{name} box")
        height, width = item.image.shape[-2:]
        box = draw_box(where, height, width, crops)
        flip, vertical = self.flips(crops)
        place = Place(box, flip=where.random() < flip, vertical=where.random() < vertical)
        if self.where is not None:
            place.box, place.placed = self.where(item, name, number, box, stream)
        return place

    def flips(self, crops: Any) -> tuple[float, float]:
        """Probabilities of a left-right and an up-down flip."""
        return crops.flip, crops.vertical_flip

    def change(self, image: Tensor, rng: Random, crops: Any, number: int) -> Tensor:
        """What is done to the pixels of a view's crop of a number."""
        return change_pixels(image, rng, crops, number)

    def crops(
        self, item: Item, stream: Stream, name: str, crops: Crops, places: list[Place], size: Size, distorted: bool
    ) -> list[Crop]:
        """One view's crops; pixels change by the purpose "pixels"."""
        what, result = stream.fresh(f"{name} pixels"), []
        for number, place in enumerate(places):
            image = place.cut(item.image, size)
            if distorted:
                image = self.change(image, what, crops, number)
            mean, std = (px.chosen(values, item.channels) for values in (self.options.mean, self.options.std))
            result.append(
                Crop(px.normalise(image, mean, std), place.signed, channels=item.channels, placed=place.placed)
            )
        return result
