"""Histograms and moments of pixels that come image by image, a channel each, in bounded memory."""

from collections.abc import Sequence
from typing import Any

import numpy as np

BINS = 4096
BARS = 64  # of a histogram that is shown


class Histogram:
    """Counts of numbers of some channels in bins of one width, which doubles when numbers lie outside; of whole numbers it begins with 1.

    counts: (channels, BINS) int64.
    """

    def __init__(self, channels: int):
        self.counts: np.ndarray = np.zeros((channels, BINS), np.int64)
        self.low, self.width = 0.0, 0.0

    def add(self, values: np.ndarray, channels: Sequence[int]) -> None:
        """Count finite numbers (C, N) of these channels."""
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not self.width:
            whole = values.dtype.kind in "ui"
            self.low, self.width = (float(np.floor(low)), 1.0) if whole else (low, max(high - low, 1e-6) / (BINS // 2))
        while low < self.low or high >= self.low + BINS * self.width:
            self._double(below=low < self.low)
        places = ((values - self.low) / self.width).astype(np.int64).clip(0, BINS - 1)
        for row, channel in zip(places, channels):
            self.counts[channel] += np.bincount(row, minlength=BINS)

    def _double(self, below: bool) -> None:
        """Twice the width; what was counted becomes the upper or the lower half."""
        pairs = self.counts.reshape(len(self.counts), BINS // 2, 2).sum(2)
        empty = np.zeros_like(pairs)
        self.counts = np.concatenate([empty, pairs] if below else [pairs, empty], 1)
        self.low -= BINS * self.width if below else 0.0
        self.width *= 2

    def quantile(self, share: float, channel: int | None = None) -> float:
        """The number that so large a share lies below, to the width of a bin; of all channels together where none is named."""
        counts = self.counts.sum(0) if channel is None else self.counts[channel]
        place = int(np.searchsorted(counts.cumsum(), max(share * counts.sum(), 1), "left"))
        return self.low + self.width * min(place, BINS - 1)

    def bars(self, channel: int, low: float, high: float) -> dict[str, Any]:
        """Counts of a channel from about `low` to `high` in `BARS` bars at most, of as many bins each, and where these begin and end."""
        first, last = (min(max(int((end - self.low) / self.width), 0), BINS - 1) for end in (low, high))
        together = -(-(last + 1 - first) // BARS)
        counts = [int(self.counts[channel, n : n + together].sum()) for n in range(first, last + 1, together)]
        start = self.low + first * self.width
        return {"low": start, "high": start + len(counts) * together * self.width, "counts": counts}


class Moments:
    """Number, mean and squared deviations of channels in float64, joined image by image (Chan et al. 1979)."""

    def __init__(self, channels: int):
        self.count, self.mean, self.squares = (np.zeros(channels) for _ in range(3))
        self.low, self.high = np.full(channels, np.inf), np.full(channels, -np.inf)
        self.images = 0

    def add(self, values: np.ndarray, channels: Sequence[int]) -> None:
        """Take in finite numbers (C, N) of these channels."""
        self.images += 1
        if not values.size:
            return
        at: list[int] = list(channels)
        wide: np.ndarray = values.astype(np.float64)
        count, mean = wide.shape[1], wide.mean(1)
        squares = np.square(wide - mean[:, None]).sum(1)
        total, shift = self.count[at] + count, mean - self.mean[at]
        self.squares[at] += squares + np.square(shift) * self.count[at] * count / total
        self.mean[at] += shift * count / total
        self.count[at] = total
        self.low[at], self.high[at] = np.minimum(self.low[at], wide.min(1)), np.maximum(self.high[at], wide.max(1))

    @property
    def std(self) -> np.ndarray:
        """Standard deviation of each channel."""
        return np.sqrt(self.squares / np.maximum(self.count, 1))

    def to_json(self) -> dict[str, Any]:
        """Images, and mean and deviation of each channel."""
        return {"count": self.images, "mean": rounded(self.mean), "std": rounded(self.std)}


def rounded(values: np.ndarray) -> list[float]:
    """Numbers of seven digits, as float32 has them."""
    return [float(f"{value:.7g}") for value in values]


def of_channels(histogram: Histogram, moments: Moments, names: Sequence[str]) -> list[dict[str, Any]]:
    """What is told of each channel that was seen."""
    result = []
    for channel, name in enumerate(names):
        if not moments.count[channel]:
            continue
        low, high = (float(ends[channel]) for ends in (moments.low, moments.high))
        p1, p50, p99 = (min(max(histogram.quantile(share, channel), low), high) for share in (0.01, 0.5, 0.99))
        told = histogram.bars(channel, *shown(histogram, channel, low, high))
        mean, std = (rounded(values)[channel] for values in (moments.mean, moments.std))
        result.append(
            {
                "name": name, "min": low, "max": high, "mean": mean, "std": std, "p1": p1, "p50": p50, "p99": p99, "histogram": told,
            }
        )  # fmt: skip
    return result


def shown(histogram: Histogram, channel: int, low: float, high: float) -> tuple[float, float]:
    """From where to where a histogram is shown: all, or all but a thousandth at each end where these are far away."""
    first, last = (histogram.quantile(share, channel) for share in (0.001, 0.999))
    if last - first < 0.5 * (high - low) and last > first:
        return first, last
    return low, high
