"""What evaluators of patches against masks share: patches of images with masks, a bank of some of them, how a segmentation is judged."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dinomx_core.builtin.evaluators.scores import overlaps
from dinomx_core.declare.figures import INFO
from dinomx_core.declare.values import Chosen
from dinomx_core.errors import DataError, TrainingError
from dinomx_core.planning.seeds import seed_of
from dinomx_core.training.construct import construct
from dinomx_core.training.contracts import Dataset, Encoder, Evaluator
from dinomx_core.training.evaluation import together, told, walk
from dinomx_core.training.flow import Item
from dinomx_core.training.regions import Regions, listed, regions_of, seen_mask

KEPT = (
    1 << 30
)  # bytes of a set's patches that evaluators of one round keep for each other; above it each encodes them again
NONE = -1  # the class of a pixel or a patch that is neither learnt nor judged


@dataclass(frozen=True)
class Seen:
    """Images of a set: their numbers, patches (B, h, w, D) float32, and what their pixels are (B, H, W) int64, where patches cover them."""

    numbers: list[int]
    patches: Tensor
    masks: Tensor


@dataclass(frozen=True)
class Bank:
    """Patches to learn from: features (P, D), class numbers as masks have them (P,), and the image that each is of (P,)."""

    patches: Tensor
    labels: Tensor
    images: Tensor


class DenseEvaluator(Evaluator):
    """`options` has `bank`, `query`, `patches`, `ignore`, `objects` and `batch_size`."""

    def __init__(self, options: Any):
        self.options = options
        self.bank: Dataset = construct(options.bank)
        self.query: Dataset = construct(options.query)

    def learn(self, encoder: Encoder) -> Bank:
        """The bank, which evaluators of one round share."""
        o = self.options
        key = ("dense bank", o.bank.component.name, repr(o.bank.options), o.patches, o.ignore, o.objects)
        if key not in encoder.seen:
            encoder.seen[key] = self._bank(encoder)
        return encoder.seen[key]

    def _bank(self, encoder: Encoder) -> Bank:
        quota = max(1, self.options.patches // len(self.bank))
        numbers: list[int] = []
        parts: list[tuple[Tensor, Tensor]] = []
        held: Counter[int] = Counter()
        for seen in looked(encoder, self.options.bank, self.bank, self.options.batch_size):
            held += numbers_of(seen.masks)
            for number, patches, mask in zip(seen.numbers, seen.patches, seen.masks):
                classes = majority(self.wanted(mask), patches.shape[0], patches.shape[1])
                kept = drawn(number, classes, quota)
                parts.append((patches.flatten(0, 1)[kept], classes[kept]))
                numbers += [number] * len(kept)
        rows = [torch.cat(found) for found in zip(*parts)] if parts else []
        found = together(encoder.parallelism, numbers, [*rows, torch.tensor(numbers)] if parts else [])
        if not found or not len(found[0]):
            raise DataError("no patch of the bank is of a known class: its masks hold nothing but the number to ignore")
        self.check_classes(encoder, "bank", found[1].unique().tolist(), held)
        if len(found[0]) > self.options.patches:  # more images than patches
            some = torch.linspace(0, len(found[0]) - 1, self.options.patches).round().long()
            found = [rows[some] for rows in found]
        return Bank(*found)

    def wanted(self, mask: Tensor) -> Tensor:
        """A mask with the classes as they are told apart, NONE for pixels that are ignored."""
        ignored = mask == self.options.ignore
        return ((mask > 0).long() if self.options.objects else mask).masked_fill(ignored, NONE)

    def check_classes(self, encoder: Encoder, whose: str, left: list[int], held: Counter[int]) -> None:
        """Raise DataError where one class alone is left, which any features tell. `held`: this process's pixels by their numbers."""
        everyone, ignore = sum(encoder.parallelism.collect(held), Counter[int]()), self.options.ignore
        if len(left) > 1:
            return
        numbers, remedy = listed(sorted(everyone)), "name images of two classes or more"
        if everyone[ignore]:
            numbers += f", and ignore = {ignore} leaves out {everyone[ignore]} of {everyone.total()} pixels"
            remedy = f"set ignore = -1 if {ignore} is a class, or else {remedy}"
        raise DataError(f"the {whose} is of one class only, {left[0]}: its masks hold {numbers}; {remedy}")

    def judge(self, encoder: Encoder, classes: Tensor, tell: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Figures of the query's segmentation. `tell`: patches (N, D) -> scores (N, C) of the `classes` (C,), which are brought to the
        pixels by bilinear interpolation."""
        pixels: Counter[tuple[int, int]] = Counter()
        held: Counter[int] = Counter()
        for seen in looked(encoder, self.options.query, self.query, self.options.batch_size):
            held += numbers_of(seen.masks)
            for patches, mask in zip(seen.patches, seen.masks):
                scores = tell(patches.flatten(0, 1)).cpu().unflatten(0, patches.shape[:2]).permute(2, 0, 1)
                whole = F.interpolate(scores[None], size=mask.shape, mode="bilinear", align_corners=False)[0]
                count(pixels, self.wanted(mask), classes[whole.argmax(0)])
        everyone = sum(encoder.parallelism.collect(pixels), Counter[tuple[int, int]]())
        if not everyone:
            raise DataError(
                "no pixel of the query is of a known class: its masks hold nothing but the number to ignore"
            )
        self.check_classes(encoder, "query", sorted({true for true, _ in everyone}), held)
        without = sum(left_out(encoder, chosen) for chosen in (self.options.bank, self.options.query))
        return {**overlaps(everyone), f"{INFO}without_masks": float(without)}


def looked(encoder: Encoder, chosen: Chosen, data: Dataset, batch_size: int) -> Iterator[Seen]:
    """The images of a process's share that have masks. Evaluators of one round share them, as long as they are not too large."""
    key = ("dense", chosen.component.name, repr(chosen.options), batch_size)
    if key in encoder.seen:
        yield from encoder.seen[key]
        return
    kept: list[Seen] = []
    size = 0
    for seen in _looked(encoder, chosen, data, batch_size):
        size += seen.patches.nbytes
        kept = [*kept, seen] if size <= KEPT else []
        yield seen
    if all(encoder.parallelism.collect(size <= KEPT)):  # or else the others would encode alone
        encoder.seen[key] = kept


def left_out(encoder: Encoder, chosen: Chosen) -> int:
    """How many images of a set that was looked at have no mask."""
    return encoder.seen["without masks", chosen.component.name, repr(chosen.options)]


def _looked(encoder: Encoder, chosen: Chosen, data: Dataset, batch_size: int) -> Iterator[Seen]:
    how, faults, without, masked = encoder.preprocessing, list[str](), list[Item](), 0

    def with_mask(item: Item) -> Item:
        made = encoder.prepare(item)
        found = regions_of(made)
        seen = Regions(seen_mask(found.mask, how)) if found and found.mask is not None else None
        return replace(made, regions=lambda: seen)

    def wanted(item: Item) -> bool:
        there = mask_of(item) is not None
        if not there:
            without.append(replace(item, image=torch.empty(0)))
        return there

    for numbers, items in walk(encoder, data, batch_size, faults.append, prepare=with_mask, wanted=wanted):
        tokens = encoder.encode(items)
        patches = tokens.patches.float().unflatten(1, tokens.grid).mean(1).cpu()
        if not bool(torch.isfinite(patches).all()):
            raise TrainingError(
                "the model's features are not finite: it has diverged; lower optimizer.lr or train in float32"
            )
        if numbers:
            masks = torch.stack([mask for item in items if (mask := mask_of(item)) is not None])
            covered = [side // grid * grid for side, grid in zip(masks.shape[1:], patches.shape[1:3])]
            yield Seen(numbers, patches, masks[:, : covered[0], : covered[1]])
            masked += len(numbers)
    every = sum(encoder.parallelism.collect(len(without)))
    encoder.seen["without masks", chosen.component.name, repr(chosen.options)] = every
    if not sum(encoder.parallelism.collect(masked)) and every:
        raise DataError(f"none of the {every} images of `{chosen.label}` that can be read has a mask")
    told(encoder, faults, len(data), masked)


def mask_of(item: Item) -> Tensor | None:
    """The mask of an image that `with_mask` has prepared."""
    found = item.regions() if item.regions is not None else None
    return None if found is None else found.mask


def numbers_of(masks: Tensor) -> Counter[int]:
    """Pixels by the number that they have in masks."""
    values, counts = masks.unique(return_counts=True)
    return Counter(dict(zip(values.tolist(), counts.tolist())))


def majority(mask: Tensor, rows: int, columns: int) -> Tensor:
    """Classes (H, W), NONE where there is none -> of each patch (rows * columns,) that of most of its pixels, the smaller number where two
    have as many; NONE where no pixel has one."""
    height, width = (side // count for side, count in zip(mask.shape, (rows, columns)))
    pixels = mask.view(rows, height, columns, width).transpose(1, 2).reshape(rows * columns, -1)
    values, which = pixels.unique(return_inverse=True)
    counts = F.one_hot(which, len(values)).sum(1)
    counts[:, values == NONE] = 0
    first = torch.arange(len(values), 0, -1)  # breaks ties
    best = (counts * (len(values) + 1) + first).argmax(1)
    return values[best].masked_fill(counts.sum(1) == 0, NONE)


def drawn(number: int, classes: Tensor, quota: int) -> Tensor:
    """Which patches of an image go into the bank: `quota` of those with a class, the same ones whatever else there is."""
    there = (classes != NONE).nonzero()[:, 0]
    if len(there) <= quota:
        return there
    order = torch.randperm(len(there), generator=torch.Generator().manual_seed(seed_of("patches", number)))
    return there[order[:quota].sort().values]


def count(pixels: Counter[tuple[int, int]], truth: Tensor, segmented: Tensor) -> None:
    """Add an image's pixels by their true class and the one they were told to be of."""
    known = truth != NONE
    if not known.any():
        return
    values, which = torch.cat([truth[known], segmented[known]]).unique(return_inverse=True)
    true, found = which.chunk(2)
    table = torch.bincount(true * len(values) + found, minlength=len(values) ** 2).view(len(values), -1)
    for row, column in table.nonzero().tolist():
        pixels[int(values[row]), int(values[column])] += int(table[row, column])
