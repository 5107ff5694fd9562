"""One pass over some images of a data set: what they are like, before and after the intensity."""

from collections import Counter
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from dinomx_core.builtin.pictures import evenly
from dinomx_core.declare.facts import DataInfo
from dinomx_core.training.contracts import Dataset, Intensity
from dinomx_core.training.flow import Label
from dinomx_core.training.look.cutting import cut_off
from dinomx_core.training.look.figures import Histogram, Moments, of_channels, rounded
from dinomx_core.training.look.reading import Seen, ahead, see

SHOWN, COMMONEST = 20, 10  # faults that are named; sizes and classes in lists
Progress = Callable[[int, int], None]


class Measured:
    """What was found of the images so far. `times`: channels that the intensity makes of one; `bounded`: whether it gives 0 to 1."""

    def __init__(self, info: DataInfo, times: int, bounded: bool):
        self.info, self.times, self.bounded = info, times, bounded
        self.before, self.after = (
            (Histogram(count), Moments(count)) for count in (info.channels, info.channels * times)
        )
        self.sizes, self.channels, self.kinds = Counter[tuple[int, int]](), Counter[int](), Counter[str]()
        self.units, self.full = Counter[str](), Counter[tuple[float, float] | None]()
        self.labels, self.groups = Counter[int](), Counter[str]()
        self.digests: dict[str, list[tuple[int, str, Label | None, str]]] = {}  # of each: index, id, label, group
        self.faults: list[str] = []
        self.cut: list[tuple[float, float]] = []
        self.count, self.seconds = 0, 0.0

    def add(self, seen: Seen) -> None:
        """Take an image in."""
        if seen.fault:
            self.faults.append(seen.fault)
        item = seen.item
        if item is None or seen.before is None:
            return
        self.count += 1
        self.sizes[item.image.shape[-2], item.image.shape[-1]] += 1
        self.channels[len(item.image)] += 1
        self.kinds[str(item.image.dtype).removeprefix("torch.")] += 1
        self.units[item.units] += 1
        self.full[item.full] += 1
        for label in item.label if isinstance(item.label, tuple) else (item.label,):
            self.labels[label if isinstance(label, int) else -1] += 1
        self.groups[item.group] += 1
        self.digests.setdefault(seen.digest, []).append((seen.index, item.id, item.label, item.group))
        own = range(len(seen.before)) if item.channels is None else item.channels
        self._count(self.before, seen.before, own)
        if seen.after is not None:
            windows = len(seen.after) // len(seen.before)
            whole = [window * self.info.channels + channel for window in range(windows) for channel in own]
            self._count(self.after, seen.after, whole)
            if self.bounded:
                self.cut.append(cut_off(seen.before, seen.after))

    def _count(self, figures: tuple[Histogram, Moments], values: np.ndarray, channels: Sequence[int]) -> None:
        for figure in figures:
            figure.add(values, channels)

    @property
    def names(self) -> list[str]:
        """Of the data's channels."""
        return [str(name) for name in self.info.names] or [str(number) for number in range(self.info.channels)]

    @property
    def names_after(self) -> list[str]:
        """Of the channels that the model gets."""
        if self.times == 1:
            return self.names
        return [f"window {window + 1} of {name}" for window in range(self.times) for name in self.names]

    def to_json(self) -> dict[str, Any]:
        """Figures without names of images, groups and classes."""
        heights, widths = ([size[axis] for size in self.sizes.elements()] for axis in (0, 1))
        histogram, moments = self.after
        middle = (histogram.quantile(0.01), histogram.quantile(0.99)) if moments.images else None
        below, above = np.mean(self.cut, 0).tolist() if self.cut else (0.0, 0.0)
        return {
            "sizes": {
                "height": spread(heights), "width": spread(widths),
                "commonest": [{"height": h, "width": w, "images": n} for (h, w), n in self.sizes.most_common(COMMONEST)],
            },
            "channels": {
                "count": self.info.channels, "names": list(self.info.names),
                "images": {str(channels): images for channels, images in sorted(self.channels.items())},
            },
            "numbers": {
                "in_files": self.info.sampled.kind if self.info.sampled else "", "as_read": dict(self.kinds),
                "units": {units or "none": count for units, count in self.units.items()},
                "declared_range": [list(full) for full in self.full if full],
            },
            "before": of_channels(*self.before, self.names),
            "after": of_channels(*self.after, self.names_after),
            "cut": {"below": below, "above": above} if self.cut else None,
            "middle": list(middle) if middle else None,
            "suggested": {"mean": rounded(moments.mean), "std": rounded(moments.std)} if moments.images else None,
            "images_per_second": round(self.count / max(self.seconds, 1e-9), 1),
        }  # fmt: skip


def spread(values: Sequence[int]) -> dict[str, int]:
    """Smallest, middle and largest."""
    ordered = sorted(values) or [0]
    return {"min": ordered[0], "median": ordered[len(ordered) // 2], "max": ordered[-1]}


def measure(
    data: Dataset, intensity: Intensity | None, measured: Measured, images: int, progress: Progress
) -> Measured:
    """Read so many evenly spread images (0: all)."""
    numbers = range(len(data)) if not images else evenly(len(data), images)
    start = perf_counter()
    for done, seen in enumerate(ahead(lambda index: see(data, intensity, index), numbers), 1):
        measured.add(seen)
        progress(done, len(numbers))
    measured.seconds = perf_counter() - start
    return measured
