"""The contract of trackers. No torch."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs


@attrs.frozen
class TrackedRun:
    """What a tracker may know of a run. out: the folder of all runs. config: every resolved option by its key path. step: the first that is
    trained now. key: what this tracker left of the run when it was begun; "" where it is new."""

    name: str
    folder: Path
    out: Path
    config: Mapping[str, Any]
    steps: int
    step: int = 0
    key: str = ""


class Tracker(ABC):
    """Tells another tool what a run does. What it raises is told once; it is left alone then, and the run goes on."""

    key: str = ""  # finds the run again, when it goes on; kept in the run folder

    @abstractmethod
    def row(self, kind: str, row: Mapping[str, Any]) -> None:
        """A row of "metrics", "evaluations" or "health" (a verdict), as the run folder has them; each has its "step"."""

    @abstractmethod
    def close(self, fault: str) -> None:
        """The run has ended; `fault`: why, where it did not do all its steps."""


def figures_of(kind: str, row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row by their names, without its step; a verdict has none."""
    if kind == "health":
        return {}
    seconds = "seconds" if kind == "metrics" else "evaluation_seconds"
    found = {seconds if name == "seconds" else name: value for name, value in row.items() if name != "step"}
    return {
        name: float(value) for name, value in found.items() if isinstance(value, (int, float)) and math.isfinite(value)
    }


def verdict_of(row: Mapping[str, Any]) -> str:
    """A verdict's row in words."""
    return f"step {row['step']}: {row['name']}: {row['message']}. {row['remedy']}"
