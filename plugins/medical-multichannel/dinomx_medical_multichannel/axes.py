"""Axes by letter: Y and X are a plane, C and S its channels, the others (Z, T, …) count planes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np

from dinomx_core.declare.reading import Region, Stack
from dinomx_core.errors import DataError

PLANE, CHANNELS = "YX", "CS"


@attrs.frozen
class Layout:
    """An array's axes, a letter each, and its shape."""

    axes: str
    shape: tuple[int, ...]

    def __attrs_post_init__(self) -> None:
        if len(set(self.axes)) < len(self.axes) or not set(PLANE) <= set(self.axes):
            raise DataError(f'axes "{self.axes}" are no image: they need Y and X, and each letter once', "axes")
        if not all(self.shape):
            raise DataError(f"holds no pixels: its shape is {self.shape} ({self.axes})")

    def named(self, axes: str) -> Layout:
        """The same with other letters; "": as it is."""
        if axes and len(axes) != len(self.axes):
            raise DataError(
                f'axes = "{axes}" names {len(axes)} axes, but there are {len(self.axes)}: {self.axes} {self.shape}',
                "axes",
            )
        return Layout(axes, self.shape) if axes else self

    def size(self, axis: str) -> int:
        """Of an axis; 1 where there is none."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    @property
    def channels(self) -> int:
        """Of each plane, samples included."""
        return self.size("C") * self.size("S")

    @property
    def counting(self) -> dict[str, int]:
        """The axes that count planes."""
        return {axis: size for axis, size in zip(self.axes, self.shape) if axis not in PLANE + CHANNELS}

    def at(self, frame: int, region: Region | None) -> tuple[Any, ...]:
        """Where a plane, or a region of it, stands in the array."""
        sizes = self.counting
        if not 0 <= frame < max(1, int(np.prod(list(sizes.values()), dtype=int))):
            raise DataError(f"has no plane {frame}: its shape is {self.shape} ({self.axes})")
        place: dict[str, Any] = dict(zip(sizes, map(int, np.unravel_index(frame, tuple(sizes.values()) or (1,)))))
        if region is not None:
            top, left, height, width = region
            place |= {"Y": slice(top, top + height), "X": slice(left, left + width)}
        return tuple(place.get(axis, slice(None)) for axis in self.axes)

    def planes(self, cut: np.ndarray) -> np.ndarray:
        """What stands at `at` -> (C, H, W)."""
        left = [axis for axis in self.axes if axis in PLANE + CHANNELS]
        order = [axis for axis in left if axis in CHANNELS] + list(PLANE)
        cut = cut.transpose([left.index(axis) for axis in order])
        return cut.reshape(-1, *cut.shape[-2:])

    def stacks(self, number: int, name: str) -> list[Stack]:
        """The planes of file `number`: those along Z, else T, else the last axis that counts planes are side by side."""
        sizes = self.counting
        if not sizes:
            return [Stack(((number, 0),))]
        along = next((axis for axis in "ZT" if axis in sizes), list(sizes)[-1])
        frames = np.moveaxis(
            np.arange(np.prod(list(sizes.values()), dtype=int)).reshape(*sizes.values()), list(sizes).index(along), -1
        )
        rows = frames.reshape(-1, sizes[along])
        return [
            Stack(tuple((number, int(frame)) for frame in row), id=f"{name} {part}" if len(rows) > 1 else "")
            for part, row in enumerate(rows, 1)
        ]


def picked(planes: np.ndarray, channels: Sequence[int]) -> np.ndarray:
    """Some of the channels of (C, H, W); all where none are named."""
    if not channels:
        return planes
    check_channels(len(planes), channels)
    return planes[list(channels)]


def check_channels(count: int, channels: Sequence[int]) -> None:
    """Raise DataError for channels that are not among so many."""
    if missing := [channel for channel in channels if not 0 <= channel < count]:
        raise DataError(f"channels: there is no channel {missing[0]}; it has {count}, counted from 0", "channels")
