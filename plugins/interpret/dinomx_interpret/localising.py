"""How well attention and features find objects, measured against masks and boxes that the model never saw."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from dinomx_core.declare.facts import Preprocessing
from dinomx_core.declare.figures import INFO
from dinomx_core.errors import DataError
from dinomx_core.training.construct import construct
from dinomx_core.training.contracts import Dataset, Encoder, Evaluator
from dinomx_core.training.evaluation import told, walk
from dinomx_core.training.flow import Item
from dinomx_core.training.maps import head_maps
from dinomx_core.training.regions import Regions, listed, regions_of, seen_boxes, seen_mask
from dinomx_interpret.finding import Box, box_of, brightest, from_attention, lost, tokencut
from dinomx_interpret.localisation import Localisation

ON_KEYS = {"lost": lost, "tokencut": tokencut}


@dataclass
class Seen:
    """An image as the model saw it. heads (H, h, w): attention to patches; keys (h, w, D); object (height, width) bool: what is
    object of the pixels seen; judged, likewise: what is one or the other; boxes: of the objects."""

    heads: Tensor
    keys: Tensor
    object: Tensor
    judged: Tensor
    boxes: list[Box]


class LocalisationEvaluator(Evaluator):
    """Pointing, attention's mass and outline, and boxes, each over the images in which an object is seen."""

    def __init__(self, options: Localisation):
        self.options = options
        self.images: Dataset = construct(options.images)
        self.validation: Dataset | None = None if options.validation is None else construct(options.validation)

    def evaluate(self, encoder: Encoder) -> dict[str, float]:
        """{"pointing": share of images whose brightest pixel is object, "mass_ratio": share of the attention on objects over their share of
        the image (1 is chance), "iou": of the brightest patches with the objects, "corloc_attention", "corloc_lost", "corloc_tokencut":
        share of images with a right box, "info/images": how many were judged}."""
        head = self.head(encoder)
        rows, numbers = [], set[int]()
        for seen in self.seen(encoder, self.images, numbers):
            rows.append(self.judge(seen, head))
        found = [row for part in encoder.parallelism.collect(rows) for row in part]
        if not found:
            why = self.without_object(encoder, numbers)
            raise DataError(f"none of {len(self.images)} images shows an object{why}")
        return {**{name: fmean(row[name] for row in found) for name in found[0]}, f"{INFO}images": float(len(found))}

    def head(self, encoder: Encoder) -> int | None:
        """Whose attention is judged: None for the mean."""
        if self.options.head == "mean":
            return None
        if isinstance(self.options.head, int):
            return self.options.head
        assert self.validation is not None
        hits, numbers = [], set[int]()
        for seen in self.seen(encoder, self.validation, numbers):
            every = [*seen.heads, seen.heads.mean(0)]
            hits.append([points(map, seen.object, seen.judged) for map in every])
        everyone = [row for part in encoder.parallelism.collect(hits) for row in part]
        if not everyone:
            why = self.without_object(encoder, numbers)
            raise DataError(f"none of the validation's {len(self.validation)} images shows an object{why}")
        shares = torch.tensor(everyone).mean(0)
        best = int(shares.argmax())
        return None if float(shares[-1]) == float(shares[best]) else best

    def without_object(self, encoder: Encoder, numbers: set[int]) -> str:
        """Why no image shows an object, and the remedy. `numbers`: what this process's masks hold."""
        held, ignore = sorted(set().union(*encoder.parallelism.collect(numbers))), self.options.ignore
        if ignore not in held:
            return "; give masks or boxes that name some"
        return f": their masks hold {listed(held)}, and ignore = {ignore}; set ignore = -1 if {ignore} is an object"

    def judge(self, seen: Seen, head: int | None) -> dict[str, float]:
        """The figures of one image."""
        if head is not None and head >= len(seen.heads):
            raise DataError(
                f"the model has {len(seen.heads)} attention heads, numbered from 0; there is no head {head}", "head"
            )
        o, map = self.options, seen.heads.mean(0) if head is None else seen.heads[head]
        figures = {
            "pointing": points(map, seen.object, seen.judged),
            "mass_ratio": mass_ratio(map, seen.object, seen.judged),
            "iou": iou(brightest(map, o.mass), seen.object, seen.judged),
        }
        for name in o.boxes:
            patches = from_attention(map, o.mass) if name == "attention" else ON_KEYS[name](seen.keys)
            box = in_pixels(box_of(patches), map.shape, seen.object.shape)
            figures[f"corloc_{name}"] = float(max(overlap(box, other) for other in seen.boxes) > o.overlap)
        return figures

    def seen(self, encoder: Encoder, data: Dataset, held: set[int]) -> Iterator[Seen]:
        """This process's share of the images that can be read and show an object; the others know of what could not be. `held` gets what
        masks hold."""
        faults, read = list[str](), list[str]()

        def prepared(item: Item) -> Item:
            regions = regions_of(item)  # before anything changes the image's size
            if regions is None:
                return replace(encoder.prepare(item), regions=None)
            found = self.as_seen(regions, item.image.shape[-2:], encoder.preprocessing)
            return replace(encoder.prepare(item), regions=lambda: found)

        def shows(item: Item) -> bool:
            read.append(item.id)
            found = None if item.regions is None else item.regions()
            if found is None or found.mask is None or found.boxes is None:
                return False
            held.update(found.mask.unique().tolist())
            if not len(found.boxes):
                return False
            return bool(((found.mask > 0) & (found.mask != self.options.ignore)).any())

        for numbers, items in walk(
            encoder, data, self.options.batch_size, faults.append, prepare=prepared, wanted=shows
        ):
            if numbers:
                yield from self.looked_at(encoder, items)
            else:
                encoder.encode(items)
        told(encoder, faults, len(data), len(read))

    def as_seen(self, regions: Regions, size: tuple[int, ...], how: Preprocessing) -> Regions:
        """Objects of an image of `size` (height, width) as an evaluation's image is seen: one mask of all of them, and a box each."""
        parts = [] if regions.mask is None else objects(seen_mask(regions.mask, how), self.options.ignore)
        boxes = torch.tensor(parts, dtype=torch.int64).view(-1, 4)
        if regions.boxes is not None:
            boxes = torch.cat([boxes, seen_boxes(regions.boxes, size[0], size[1], how)])
        return Regions(seen_mask(regions.painted(*size), how), boxes)

    def looked_at(self, encoder: Encoder, items: list[Item]) -> Iterator[Seen]:
        """A batch through the model."""
        _, maps, keys = head_maps(encoder, items)
        for heads, patches, item in zip(maps.cpu(), keys.cpu(), items):
            regions = None if item.regions is None else item.regions()
            assert regions is not None
            assert regions.mask is not None
            assert regions.boxes is not None
            judged = regions.mask != self.options.ignore
            yield Seen(
                heads, patches, (regions.mask > 0) & judged, judged, [tuple(box) for box in regions.boxes.tolist()]
            )


def objects(mask: Tensor, ignore: int) -> list[Box]:
    """Boxes around the connected parts of each class of a mask (height, width)."""
    found = []
    for number in set(mask.unique().tolist()) - {0, ignore}:
        parts, _ = ndimage.label((mask == number).numpy(), structure=[[1, 1, 1]] * 3)
        found += [(r.start, c.start, r.stop - r.start, c.stop - c.start) for r, c in ndimage.find_objects(parts)]
    return found


def points(map: Tensor, object: Tensor, judged: Tensor) -> float:
    """Whether the brightest pixel that is judged of a map (h, w), brought to the image's size bilinearly, is object: the pointing game
    (Zhang et al. 2016), without a margin around objects."""
    large = F.interpolate(map[None, None].double(), size=tuple(object.shape), mode="bilinear", align_corners=False)[
        0, 0
    ]
    return float(object.flatten()[int(large.masked_fill(~judged, -1.0).argmax())])


def on_pixels(map: Tensor, size: tuple[int, ...]) -> Tensor:
    """A map of patches as one of pixels, each with its patch's value."""
    return F.interpolate(map[None, None].double(), size=size, mode="nearest-exact")[0, 0]


def mass_ratio(map: Tensor, object: Tensor, judged: Tensor) -> float:
    """The share of a map's mass that lies on objects over the share of the pixels that are object."""
    large = on_pixels(map, tuple(object.shape))
    inside = float(large[object].sum() / large[judged].sum().clamp_min(1e-12))
    return inside / float(object.sum() / judged.sum())


def iou(patches: Tensor, object: Tensor, judged: Tensor) -> float:
    """Intersection over union of patches that are set with objects, in pixels."""
    large = (on_pixels(patches.double(), tuple(object.shape)) > 0.5) & judged
    return float((large & object).sum() / (large | object).sum())


def in_pixels(box: Box, grid: tuple[int, ...], size: tuple[int, ...]) -> Box:
    """A box of patches in pixels."""
    high, wide = size[0] // grid[0], size[1] // grid[1]
    top, left, height, width = box
    return top * high, left * wide, height * high, width * wide


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes (top, left, height, width)."""
    high = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    wide = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    shared = max(0, high) * max(0, wide)
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)
