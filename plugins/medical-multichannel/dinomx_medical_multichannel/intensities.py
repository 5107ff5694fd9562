"""Intensities: numbers of files -> float32 pixels."""

import json
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dinomx_core import DataError
from dinomx_core.training.contracts import Intensity
from dinomx_core.training.flow import Item, replaced
from dinomx_core.training.pixels import scaled
from dinomx_medical_multichannel.numbers import HU, Declared, Log, Percentiles, Window, ZScore

LEAST = 1e-6  # of a spread that is divided by


def declared(item: Item, options: Declared) -> Tensor:
    """The image's numbers in their units, float32. Raises DataError where some are not finite, or the file says other units."""
    image = item.image.float()
    if options.units and item.units not in ("", options.units):
        raise DataError(f"the file says that its numbers are {item.units}, not {options.units}")
    if (options.slope, options.intercept) != (1.0, 0.0):
        image = image * options.slope + options.intercept
    if not all(math.isfinite(end) for end in torch.aminmax(image)):  # which is not a number where any pixel is not
        raise DataError("holds pixels that are not finite numbers")
    return image


class WindowIntensity(Intensity):
    """Each window of the numbers becomes 0..1, all channels of the first window first."""

    def __init__(self, options: Window):
        self.options = options

    def __call__(self, item: Item) -> Item:
        """(C, H, W) -> (windows * C, H, W). Raises DataError for numbers that are not in the units of named windows."""
        units = self.options.units or item.units
        if self.options.windows and units != HU:
            raise DataError(f"its numbers {f'are {units}' if units else 'have no units'}, and the windows are in HU")
        image = declared(item, self.options)
        return replaced(item, torch.cat([scaled(image, *bounds).clamp_(0, 1) for bounds in self.options.bounds]))


class PercentilesIntensity(Intensity):
    """The image's percentiles become 0 and 1."""

    def __init__(self, options: Percentiles):
        self.options = options

    def __call__(self, item: Item) -> Item:
        """The ranks of sorted pixels nearest to the shares; a constant image becomes 0."""
        image = declared(item, self.options)
        parts = list(image) if self.options.by_channel else [image]
        return replaced(item, torch.cat([self._part(part).view(-1, *image.shape[1:]) for part in parts]))

    def _part(self, part: Tensor) -> Tensor:
        counted = part if self.options.above is None else part[part > self.options.above]
        if not counted.numel():
            return torch.zeros_like(part)
        low, high = nearest(counted, [share / 100 for share in self.options.percentiles])
        return scaled(part, low, max(high, low + LEAST * max(1.0, abs(low)))).clamp_(0, 1)


def nearest(values: Tensor, shares: list[float]) -> list[float]:
    """The values of the ranks nearest to shares. NumPy puts the few ranks in their places several times faster than torch finds one."""
    ranks = [round(share * (values.numel() - 1)) for share in shares]
    placed = np.partition(values.reshape(-1).numpy(), ranks)
    return [float(placed[rank]) for rank in ranks]


class ZScoreIntensity(Intensity):
    """Numbers less a mean over a standard deviation."""

    def __init__(self, options: ZScore):
        self.options = options
        self.groups = read_statistics(options.statistics) if options.of == "group" else {}

    def __call__(self, item: Item) -> Item:
        """Raises DataError for an image of a group that the statistics do not have."""
        image = declared(item, self.options)
        mean, std = self.statistics(image, item.group)
        return replaced(item, (image - mean) / std.clamp_min(LEAST))

    def statistics(self, image: Tensor, group: str) -> tuple[Tensor, Tensor]:
        """Mean and deviation, (1 or C, 1, 1)."""
        options = self.options
        if options.of == "given":
            return column(options.mean), column(options.std)
        if options.of == "group":
            if group not in self.groups:
                raise DataError(
                    f'is of the group "{group}", which {options.statistics} does not have; measure it again'
                )
            return self.groups[group]
        parts = list(image) if options.by_channel else [image]
        counted = [part if options.above is None else part[part > options.above] for part in parts]
        found = [(p.mean(), p.std(correction=0)) if p.numel() else (p.new_zeros(()), p.new_ones(())) for p in counted]
        means, stds = zip(*found)
        return torch.stack(means).view(-1, 1, 1), torch.stack(stds).view(-1, 1, 1)


def column(values: list[float]) -> Tensor:
    """Numbers a channel, to be broadcast over pixels."""
    return torch.tensor(values).view(-1, 1, 1)


def read_statistics(file: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and deviation of each group. Raises DataError where the file has none."""
    try:
        groups = json.loads(Path(file).expanduser().read_text("utf-8"))["groups"]
        return {name: (column(found["mean"]), column(found["std"])) for name, found in groups.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file}: holds no statistics of groups ({type(error).__name__}: {error}); `dinomx data CONFIG --statistics FILE` writes them",
            "statistics",
        ) from None


class LogIntensity(Intensity):
    """Logarithms over 0..1."""

    def __init__(self, options: Log):
        self.options = options

    def __call__(self, item: Item) -> Item:
        """Raises DataError for numbers outside 0 and `high`."""
        image, options = declared(item, self.options), self.options
        low, high = (float(value) for value in torch.aminmax(image))
        if low < 0 or high > options.high:
            raise DataError(
                f"holds numbers from {low:g} to {high:g}, and the logarithm takes 0 to {options.high:g}; raise intensity.high"
            )
        return replaced(
            item, torch.log1p(image / options.scale) / torch.log1p(torch.tensor(options.high / options.scale))
        )
