"""Rows of a contact sheet: an image with the boxes of its crops, and the crops exactly as a run with the same seed trains on them."""

from collections.abc import Iterator, Sequence

import attrs
import numpy as np
import torch
from PIL import Image, ImageDraw

from dinomx_core.builtin.pictures import evenly
from dinomx_core.declare.facts import Preprocessing
from dinomx_core.errors import DinomxError
from dinomx_core.training.data import TrainingImages
from dinomx_core.training.flow import Crop, Item
from dinomx_core.training.look.names import Naming
from dinomx_core.training.pixels import chosen, to_float
from dinomx_core.training.positions import Positions

WHOLE = 320  # pixels of the longer side of a whole image
SHOWN = {"global": 4, "local": 4}  # crops of a view at most
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00", "#cc79a7", "#0072b2", "#999999")  # Okabe and Ito's
MIDDLE = (0.01, 0.99)  # quantiles of numbers that may lie anywhere
MEASURED = 100_000  # pixels of a channel that these are taken of, about
SEARCHED = 1_000_000  # positions that are looked through for an image


@attrs.frozen
class Shown:
    """Which channels are shown, and from where to where each of all channels goes from dark to bright."""

    channels: tuple[int, ...]
    ends: tuple[tuple[float, float], ...]

    def picture(self, pixels: torch.Tensor, known: Sequence[int] | None) -> Image.Image:
        """(C, H, W) of the channels `known` (None: all) -> a picture: one channel grey, up to three as red, green and blue. A channel
        that is not there is black; of images with none of them, the first that they have is grey."""
        own = list(range(len(pixels)) if known is None else known)
        wanted = [c for c in self.channels if c in own] or own[:1]
        planes = {channel: self._plane(pixels[own.index(channel)], channel) for channel in wanted}
        if len(self.channels) == 1 or len(own) == 1:
            return Image.fromarray(planes[wanted[0]])
        blank = np.zeros(pixels.shape[1:], np.uint8)
        parts = [planes.get(channel, blank) for channel in self.channels]
        return Image.fromarray(np.stack([*parts, blank][:3], -1))

    def _plane(self, plane: torch.Tensor, channel: int) -> np.ndarray:
        low, high = self.ends[channel]
        return ((plane.float() - low) / max(high - low, 1e-6)).clamp(0, 1).mul(255).round().to(torch.uint8).numpy()


@attrs.frozen(eq=False)
class Row:
    """One image: what is written over it, the whole of it with boxes, and its crops: name, picture and colour of the box of each."""

    title: str
    whole: Image.Image
    crops: tuple[tuple[str, Image.Image, str], ...]


def rows(
    images: TrainingImages,
    places: Sequence[int],
    how: Preprocessing,
    shown: Shown,
    classes: Sequence[str],
    naming: Naming,
) -> Iterator[Row]:
    """A row of the image at each of some positions; those that cannot be read are left out."""
    for position in places:
        sample = images[position]
        if isinstance(sample, DinomxError):
            continue
        crops, label, index, _ = sample
        item = images.intensity(images.data[index])
        told = [naming(item.id) if item.id else f"image {index}"]
        told += [f"group {naming(item.group)}"] if item.group else []
        told += [f"class {naming(classes[label])}"] if label >= 0 and classes else []
        told.append(f"{item.image.shape[-1]} x {item.image.shape[-2]} px")
        yield row(" · ".join(told), item, crops, how, shown)


def ends_of(pixels: torch.Tensor, known: Sequence[int] | None, count: int) -> tuple[tuple[float, float], ...]:
    """From where to where each of `count` channels goes, for an image (C, H, W) of the channels `known` (None: all): its middle 98%."""
    flat = pixels.flatten(1)
    quantiles = torch.quantile(flat[:, :: max(1, flat.shape[1] // MEASURED)], torch.tensor(MIDDLE), dim=1).T.tolist()
    found = dict(zip(range(count) if known is None else known, quantiles))
    return tuple((found[c][0], found[c][1]) if c in found else (0.0, 1.0) for c in range(count))


def positions(images: TrainingImages, count: int) -> list[int]:
    """Where the run first meets images that are evenly spread over the data set; of a mixture, positions evenly spread over a pass."""
    total = len(images.data)
    wanted = set(evenly(total, count))
    if isinstance(images.positions, Positions) and total <= SEARCHED:
        found = {index: p for p in range(total) if (index := images.positions.index(p)) in wanted}
        return [found[index] for index in sorted(found)]
    return sorted(wanted)


def row(title: str, item: Item, views: dict[str, list[Crop]], how: Preprocessing, shown: Shown) -> Row:
    """Whole image and crops. item: as the intensity left it."""
    whole = shown.picture(to_float(item.image), item.channels).convert("RGB")
    scale = WHOLE / max(whole.size)
    size = (max(1, round(whole.width * scale)), max(1, round(whole.height * scale)))
    whole = whole.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)
    drawing = ImageDraw.Draw(whole)
    crops: list[tuple[str, Image.Image, str]] = []
    for name, most in SHOWN.items():
        for number, crop in enumerate(views.get(name, [])[:most]):
            colour = COLOURS[len(crops) % len(COLOURS)]
            top, left, height, width = (value * scale for value in crop.box)
            ends = (left, top, min(left + abs(width), size[0]) - 1, min(top + abs(height), size[1]) - 1)
            wide = 3 if name == "global" else 2
            drawing.rectangle((ends[0] - 1, ends[1] - 1, ends[2] + 1, ends[3] + 1), outline="black", width=wide + 2)
            drawing.rectangle(ends, outline=colour, width=wide)
            crops.append((f"{name} {number + 1}", shown.picture(plain(crop, how), crop.channels), colour))
    return Row(title, whole, tuple(crops))


def plain(crop: Crop, how: Preprocessing) -> torch.Tensor:
    """A crop's pixels before they were normalised."""
    mean, std = (torch.tensor(chosen(values, crop.channels)).view(-1, 1, 1) for values in (how.mean, how.std))
    return crop.pixels * std + mean
