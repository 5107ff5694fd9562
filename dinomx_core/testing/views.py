"""Checks of what stands between files and the network: intensities, augmentations, placements and maskings."""

import copy
import pickle
from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import Any

import torch
from torch import Tensor

from dinomx_core.errors import DataError
from dinomx_core.testing.findings import Skip, check
from dinomx_core.testing.runs import built, scrambled, stream_of
from dinomx_core.testing.subject import Part
from dinomx_core.training.construct import construct
from dinomx_core.training.flow import Crop, Item
from dinomx_core.training.regions import Regions
from dinomx_core.training.streams import Stream

CHANNELS, HEIGHT, WIDTH, IMAGES = (1, 3, 5), 40, 48, 4
TYPES = (torch.uint8, torch.uint16, torch.float32)
FROM_STREAM = (
    "draw from the stream that is handed over (`stream.purpose`), never from a generator of torch, NumPy or Python"
)
NEAR = 0.05  # mean difference of pixels over 0..1 between number types


def picture(channels: int, seed: int = 0, kind: torch.dtype = torch.uint8) -> Tensor:
    """Smooth noise (C, H, W) over a type's whole range; of floats over 0..1."""
    coarse = torch.rand(1, channels, 5, 6, generator=torch.Generator().manual_seed(seed))
    image = (torch.nn.functional.interpolate(coarse, size=(HEIGHT, WIDTH), mode="bilinear")[0] * 255).round()
    return image.to(kind) if kind == torch.uint8 else (image * 257).to(kind) if kind == torch.uint16 else image / 255


def item_of(channels: int, seed: int = 0, kind: torch.dtype = torch.uint8) -> Item:
    """An image with two objects, of the classes 1 and 2."""
    mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.int64)
    mask[5:12, 8:20], mask[25:35, 30:36] = 1, 2
    boxes, classes = torch.tensor([[5, 8, 7, 12], [25, 30, 10, 6]]), torch.tensor([1, 2])
    found = Regions(mask, boxes, classes, ("one", "two"))
    return Item(picture(channels, seed, kind), 0, f"image-{seed}", regions=lambda: found)


def stream(position: int) -> Stream:
    """A sample's stream, of the step that it is in."""
    return Stream(0, position, step=Stream(0, "step", position // IMAGES))


def counts(part: Part) -> list[int]:
    """Numbers of channels that its mean and standard deviation are for."""
    how = part.component.preprocessing(part.chosen.options)
    return [count for count in CHANNELS if all(len(values) in (1, count) for values in (how.mean, how.std))]


def crops_of(made: Any, position: int, item: Item) -> list[tuple[str, int, Crop]]:
    """An image's crops, by view and number."""
    found = made(item, stream(position))
    return [(view, number, crop) for view, crops in found.items() for number, crop in enumerate(crops)]


def unlike(one: list[tuple[str, int, Crop]], other: list[tuple[str, int, Crop]]) -> str:
    """The first crop in which two lists differ, in words; or ""."""
    for (view, number, crop), (_, _, again) in zip(one, other, strict=True):
        if not torch.equal(crop.pixels, again.pixels) or tuple(crop.box) != tuple(again.box):
            return f"crop {number} of {view}"
    return ""


@check(
    "augmentation", "views", "declare in `views` what `__call__` makes, and say in each crop's box where it came from"
)
def views(part: Part) -> Iterator[str]:
    """Of images of 1, 3 and 5 channels it makes the declared views: so many crops, of one of the declared sizes, finite float32."""
    declared = {view.name: view for view in part.component.views(part.chosen.options)}
    for channels in counts(part):
        found = construct(part.chosen, channels)(item_of(channels), stream(0))
        where = f"{channels} channels: "
        if found.keys() != declared.keys():
            yield f"{where}it makes the views {', '.join(found)}, and declares {', '.join(declared)}"
            continue
        for name, crops in found.items():
            view = declared[name]
            if len(crops) != view.count:
                yield f"{where}{len(crops)} crops of {name}, and {view.count} are declared"
            for crop in crops:
                if fault := fault_of(crop, channels, [tuple(size) for size in (view.size, *view.others)]):
                    yield f"{where}{name}: {fault}"
                    break


def fault_of(crop: Crop, channels: int, sizes: list[tuple[int, int]]) -> str:
    """What is wrong with a crop."""
    wanted = channels if crop.channels is None else len(crop.channels)
    if len(crop.pixels) != wanted or tuple(crop.pixels.shape[1:]) not in sizes:
        return f"a crop of {tuple(crop.pixels.shape)}, expected {wanted} channels of {' or '.join(map(str, sizes))}"
    if crop.pixels.dtype != torch.float32 or not bool(torch.isfinite(crop.pixels).all()):
        return f"pixels are {crop.pixels.dtype}, or not finite; expected finite torch.float32"
    top, left, height, width = crop.box
    if not (top >= 0 and left >= 0 and 0 < abs(height) <= HEIGHT - top and 0 < abs(width) <= WIDTH - left):
        return f"its box {tuple(crop.box)} (top, left, height, width) is not within the image of {HEIGHT} x {WIDTH} px"
    return ""


@check("augmentation", "seeds", FROM_STREAM)
def seeds(part: Part) -> Iterator[str]:
    """The same stream gives the same crops, another one others, and the image stays as it was."""
    channels = counts(part)[0]
    made, item = construct(part.chosen, channels), item_of(channels)
    kept, found = item.image.clone(), []
    for seed in (1, 2):
        with scrambled(seed):
            found.append(crops_of(made, 0, item))
    if where := unlike(*found):
        yield f"the same stream gives another {where}"
    if not torch.equal(item.image, kept):
        yield "it changes the image in place"
    if not any(unlike(found[0], crops_of(made, position, item)) for position in range(1, 4)):
        yield "other streams give the same crops"


@check("augmentation", "numbers", "bring pixels to float32 over 0..1 first (`pixels.to_float`)")
def numbers(part: Part) -> Iterator[str]:
    """An image in uint8, uint16 and float32 gives about the same crops."""
    channels = counts(part)[0]
    made = construct(part.chosen, channels)
    found = {kind: crops_of(made, 0, item_of(channels, kind=kind)) for kind in TYPES}
    std = min(part.component.preprocessing(part.chosen.options).std)
    for kind, crops in found.items():
        for (view, number, crop), (_, _, other) in zip(crops, found[torch.uint8]):
            if not float((crop.pixels - other.pixels).abs().mean()) * std < NEAR:
                yield f"{kind}: crop {number} of {view} is far from that of the same image in uint8"
                break


@check("augmentation", "workers", "keep nothing from one image to the next, and draw from the stream")
def workers(part: Part) -> Iterator[str]:
    """Batches are the same with two loader workers as with none."""
    batches = []
    for count in (0, 2):
        parts = built(part, {"run": {"steps": 2}, "loader": {"workers": count}})
        batches.append([made for made, _ in islice(stream_of(parts), 2)])
    for step, (one, other) in enumerate(zip(*batches)):
        for name, pixels in one.pixels.items():
            if not torch.equal(pixels, other.pixels[name]):
                yield f"step {step}: the crops of {name} differ"


@check("placement", "inside", "clamp the box to the image; what is drawn comes from purposes of the stream of its own")
def inside(part: Part) -> Iterator[str]:
    """Boxes keep their size and lie within the image; the same stream puts them to the same places; a word says how that came about."""
    made, found = construct(part.chosen), []
    box = (3, 4, 16, 20)
    for seed in (1, 2):
        with scrambled(seed):
            at = [(n, view, i) for n in range(20) for view in ("global", "local") for i in range(2)]
            found.append([made(item_of(1, n), view, i, box, stream(n)) for n, view, i in at])
    if found[0] != found[1]:
        yield "the same stream puts a crop to another place"
    for (top, left, height, width), word in found[0]:
        if (height, width) != box[2:] or top < 0 or left < 0 or top + height > HEIGHT or left + width > WIDTH:
            yield f"the box {box} becomes {(top, left, height, width)} in an image of {HEIGHT} x {WIDTH} px"
            break
        if not isinstance(word, str):
            yield f"it says {word!r} of a crop, expected a word"
            break


@check("masking", "masks", "draw from the generators that are handed over, and count in patches")
def masks(part: Part) -> Iterator[str]:
    """It masks between none and all patches, as many as it counted or about so, and the same generators give the same masks."""
    made, crops, grid = construct(part.chosen), 12, (6, 7)
    patches, found = grid[0] * grid[1], []
    for seed in (1, 2):
        with scrambled(seed):
            drawn = list(made.counts(crops, patches, Random(0)))
            found.append((drawn, [made.mask(count, grid, Random(n)) for n, count in enumerate(drawn) if count]))
    drawn, made_of = found[0]
    if len(drawn) != crops or not all(0 <= count <= patches for count in drawn):
        yield f"of {crops} crops of {patches} patches it masks {drawn}, expected a number from 0 to {patches} for each"
    if not any(drawn):
        yield f"of {crops} crops it masks none"
    for mask in made_of:
        if mask.dtype != torch.bool or tuple(mask.shape) != (patches,) or not 0 < int(mask.sum()) <= patches:
            yield f"a mask of {tuple(mask.shape)} {mask.dtype} with {int(mask.sum())} patches, expected {(patches,)} torch.bool"
            break
    if drawn != found[1][0] or any(not torch.equal(a, b) for a, b in zip(made_of, found[1][1])):
        yield "the same generators give other masks"


@check(
    "intensity", "pixels", "return `replaced(item, pixels)`, and raise DataError for numbers that mean nothing to it"
)
def pixels(part: Part) -> Iterator[str]:
    """Numbers of each type become uint8, uint16 or finite float32 of the declared channels, within 0..1 where that is declared."""
    component, options = part.component, part.chosen.options
    made, taken, reason = construct(part.chosen), 0, ""
    for channels in CHANNELS:
        for kind in TYPES:
            item = item_of(channels, kind=kind)
            kept = item.image.clone()
            try:
                image = made(copy.copy(item)).image
            except DataError as error:
                reason = str(error)
                continue
            taken += 1
            where = f"{channels} channels of {kind}: "
            if not torch.equal(kept, item.image):
                yield f"{where}it changes the image in place"
            if image.dtype not in TYPES or len(image) != component.channels(options, channels):
                wanted = f"{component.channels(options, channels)} of uint8, uint16 or float32"
                yield f"{where}{len(image)} channels of {image.dtype}, expected {wanted}"
            elif image.dtype == torch.float32:
                low, high = (float(end) for end in torch.aminmax(image))
                if not (low == low and abs(low) < float("inf") and abs(high) < float("inf")):
                    yield f"{where}pixels are not finite"
                elif component.bounded(options) and not (low >= 0 and high <= 1):
                    yield f"{where}pixels from {low:g} to {high:g}, and within 0..1 is declared"
    if not taken:
        raise Skip(f"it takes no image of whole numbers, or of floats over 0..1: {reason}")


@check("augmentation", "pickles", "keep plain values, and what can be pickled; open files when they are first read")
@check("intensity", "pickles", "keep plain values, and what can be pickled")
@check("placement", "pickles", "keep plain values, and what can be pickled")
@check("masking", "pickles", "keep plain values, and what can be pickled")
def pickles(part: Part) -> Iterator[str]:
    """It can be sent to the loader's workers."""
    context = (3,) if part.kind == "augmentation" else ()
    pickle.loads(pickle.dumps(construct(part.chosen, *context)))
    return iter(())
