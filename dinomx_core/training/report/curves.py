"""Figures over steps, in few points: neighbouring steps share a point as a run grows longer, and none of its extremes is lost."""

import math
from collections.abc import Iterator
from typing import Any

import attrs

MOST = 256  # points of a curve
SMOOTH = 10  # points to each side that a smoothed line is the mean of, at most
LEFT_OUT = ("step",)


@attrs.define
class Point:
    """Some steps in succession: how many numbers, their sum, and the smallest and largest with their steps."""

    first: int
    count: int = 0
    total: float = 0.0
    low: tuple[float, int] = (math.inf, 0)
    high: tuple[float, int] = (-math.inf, 0)

    def add(self, step: int, value: float) -> None:
        """One more number."""
        self.count, self.total = self.count + 1, self.total + value
        self.low, self.high = min(self.low, (value, step)), max(self.high, (value, step))

    def join(self, other: "Point") -> None:
        """The steps after these."""
        self.count, self.total = self.count + other.count, self.total + other.total
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)

    @property
    def mean(self) -> float:
        """Of its numbers."""
        return self.total / self.count


class Curve:
    """A figure over steps. `width`: steps of a point."""

    def __init__(self) -> None:
        self.width, self.points, self.last = 1, dict[int, Point](), (0, math.nan)

    def add(self, step: int, value: float) -> None:
        """The figure's number at a step; steps come in order."""
        while step >= self.width * MOST:
            self.halve()
        self.points.setdefault(step // self.width, Point(step)).add(step, value)
        self.last = (step, value)

    def halve(self) -> None:
        """Half as many points, of twice as many steps."""
        self.width, before, self.points = 2 * self.width, self.points, {}
        for number, point in before.items():
            if number // 2 in self.points:
                self.points[number // 2].join(point)
            else:
                self.points[number // 2] = point

    def raw(self) -> Iterator[tuple[int, float]]:
        """Steps and numbers: the smallest and the largest of each point, in the order in which they came."""
        for point in self.points.values():
            for value, step in sorted({point.low, point.high}, key=lambda pair: pair[1]):
                yield step, value

    def means(self) -> Iterator[tuple[int, float]]:
        """The first step of each point, and the mean."""
        for point in self.points.values():
            yield point.first, point.mean

    def smoothed(self) -> Iterator[tuple[int, float]]:
        """The means of points around each, as many to both sides, so that nothing is moved; fewer towards the ends, and in short curves."""
        means = list(self.means())
        for number, (step, _) in enumerate(means):
            aside = min(SMOOTH, len(means) // SMOOTH, number, len(means) - 1 - number)
            around = means[number - aside : number + aside + 1]
            yield step, sum(value for _, value in around) / len(around)


class Curves:
    """All figures of some kind of row by name, in the order in which they were first met."""

    def __init__(self) -> None:
        self.figures = dict[str, Curve]()

    def add(self, row: dict[str, Any]) -> None:
        """A row of the run folder; what is no finite number is left out."""
        for name, value in row.items():
            if name not in LEFT_OUT and isinstance(value, (int, float)) and math.isfinite(value):
                self.figures.setdefault(name, Curve()).add(row["step"], value)
