"""What lies where in an image: masks and boxes, which only training and evaluators that ask for them read."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dinomx_core.declare.facts import Preprocessing
from dinomx_core.errors import DataError
from dinomx_core.training.flow import Item

SHOWN = 5  # numbers that a message tells


@dataclass(frozen=True)
class Regions:
    """Objects of an image. mask (H, W) int64: the class of each pixel, 0 for none; None: there is none. boxes (M, 4) int64: top, left,
    height, width in pixels; classes (M,) int64: theirs, from 1 on; names: of the classes that boxes have, the first of which is 1.
    density (h, w) float32, instead of these: how much each cell of a grid counts, over `seen` (4,): top, left, height, width in pixels."""

    mask: Tensor | None = None
    boxes: Tensor | None = None
    classes: Tensor | None = None
    names: tuple[str, ...] = ()
    density: Tensor | None = None
    seen: Tensor | None = None

    def painted(self, height: int, width: int) -> Tensor:
        """(height, width) int64: the class of each pixel, boxes as if all of them were object, the last on top."""
        result = torch.zeros(height, width, dtype=torch.int64) if self.mask is None else self.mask.clone()
        if self.boxes is not None and self.classes is not None:
            for (top, left, high, wide), number in zip(self.boxes.tolist(), self.classes.tolist()):
                result[top : top + high, left : left + wide] = number
        return result


def classes_of(pixels: Tensor, place: object) -> Tensor:
    """The planes of a mask (C, H, W) -> (H, W) int64: its numbers are the classes. Raises DataError naming the place for colours, and
    for numbers that are no classes."""
    if bool((pixels[1:] != pixels[:1]).any()):
        raise DataError(
            f"{place}: is no mask: its {len(pixels)} channels differ; a mask has one whole number a pixel, 0 for no object"
        )
    whole = pixels[0].to(torch.int64)
    if bool((whole != pixels[0]).any()) or int(whole.min()) < 0:
        raise DataError(
            f"{place}: is no mask: it has numbers such as {float(pixels[0].min()):g}, which are no whole ones from 0 on"
        )
    return whole


def regions_of(item: Item) -> Regions | None:
    """What lies where in an image, None where nobody says. Raises DataError, naming the image, unless that fits its size."""
    found = item.regions() if item.regions is not None else None
    if found is None:
        return None
    height, width = item.image.shape[-2:]
    if found.mask is not None and tuple(found.mask.shape) != (height, width):
        high, wide = found.mask.shape
        raise DataError(
            f"{item.id}: its mask has {high} x {wide} pixels, the image {height} x {width}; give masks of the image's size"
        )
    for top, left, high, wide in [] if found.boxes is None else found.boxes.tolist():
        if top < 0 or left < 0 or high < 1 or wide < 1 or top + high > height or left + wide > width:
            raise DataError(
                f"{item.id}: the box with left {left}, top {top}, width {wide}, height {high} does not lie in the image of {height} x "
                f"{width} pixels (height x width); boxes count pixels of the image from 0"
            )
    return found


def listed(numbers: Sequence[int]) -> str:
    """Numbers of masks as messages tell them: "0 and 255"."""
    some, more = [str(number) for number in numbers[:SHOWN]], len(numbers) - SHOWN
    if more > 0:
        return f"{', '.join(some)} and {more} more"
    return " and ".join(part for part in (", ".join(some[:-1]), some[-1]) if part)


def seen_mask(mask: Tensor, how: Preprocessing) -> Tensor:
    """A mask (H, W) as an evaluation's image is seen: resized (nearest) and cut as `evaluation.preprocess` does, (height, width) of the
    crop, int64."""
    size, top, left = how.fitted(*mask.shape)
    seen = F.interpolate(mask[None, None].double(), size=(size.height, size.width), mode="nearest-exact")[0, 0].long()
    return seen[top : top + how.crop.height, left : left + how.crop.width]


def seen_boxes(boxes: Tensor, height: int, width: int, how: Preprocessing) -> Tensor:
    """Boxes (M, 4) of an image of that size, as `seen_mask` sees their pixels, (N, 4) int64; those that the crop leaves out are not among
    them."""
    size, top, left = how.fitted(height, width)
    scale = torch.tensor([size.height / height, size.width / width], dtype=torch.float64)
    corner = torch.tensor([top, left])
    ends = torch.tensor([how.crop.height, how.crop.width])
    first, last = ((corners * scale).round().long() - corner for corners in (boxes[:, :2], boxes[:, :2] + boxes[:, 2:]))
    last = torch.maximum(last, first + 1)
    first, last = first.clamp_min(0), torch.minimum(last, ends)
    return torch.cat([first, last - first], 1)[(last > first).all(1)]
