"""Runs of one kind together: means and spreads of their figures, what they cost, and where the kinds differ."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import attrs

from dinomx_core.comparing import fairness
from dinomx_core.comparing.runs import SEED, Budget, Run, find_runs, finite, row_at
from dinomx_core.declare.figures import judged
from dinomx_core.errors import ConfigError, Problem
from dinomx_core.planning.convert import suggestion
from dinomx_core.planning.resume import FREE

AT = ("last", "best")
STEPS = "run.steps"  # may change between two parts of a run, but makes another one of it
SIDE = re.compile(r"(stage\.[^.]+\.)?(run\.(seed|device|threads)|evaluate\..*)")  # what makes no kind of runs either


@attrs.frozen
class Figure:
    """Mean and sample standard deviation (n - 1; None of one run) over the runs that have a figure."""

    mean: float
    spread: float | None
    values: list[float]


@attrs.frozen(eq=False)
class Group:
    """Runs with the same values of some keys. figures: None where no run has one. steps: those that the figures are of."""

    keys: dict[str, Any]
    runs: list[Run]
    figures: dict[str, Figure | None]
    steps: list[int]

    @property
    def images(self) -> tuple[int, int]:
        """Images seen by the run that saw fewest, and by that which saw most."""
        return min(run.images for run in self.runs), max(run.images for run in self.runs)

    @property
    def hours(self) -> float:
        """Mean time by the clock of a run's steps and evaluations."""
        return fmean(run.seconds for run in self.runs) / 3600

    @property
    def places(self) -> list[str]:
        """Numbers and kinds of processes ("1 cuda")."""
        return list(dict.fromkeys(run.place for run in self.runs))

    @property
    def budget(self) -> Budget | None:
        """The largest one of its runs' sweeps."""
        found = [run.budget for run in self.runs if run.budget]
        return max(found, key=lambda budget: budget.runs, default=None)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "keys": self.keys, "n": len(self.runs), "runs": [str(run.folder) for run in self.runs],
            "seeds": [run.seed for run in self.runs], "steps": self.steps,
            "figures": {name: attrs.asdict(found) if found else None for name, found in self.figures.items()},
            "images": list(self.images), "hours": self.hours, "processes": self.places,
            "tried": attrs.asdict(self.budget) if self.budget else None,
        }  # fmt: skip


@attrs.frozen
class Comparison:
    """What `compare` finds. differing: keys in which groups differ, with the value in each group (None: it has no such key)."""

    by: list[str]
    at: str
    figures: list[str]
    groups: list[Group]
    differing: dict[str, list[Any]]
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "by": self.by, "at": self.at, "figures": self.figures, "spread": "sample standard deviation",
            "groups": [group.to_json() for group in self.groups], "differing": self.differing, "warnings": self.warnings,
        }  # fmt: skip


def compare(paths: Sequence[Path], by: Sequence[str], figures: Sequence[str], at: str) -> Comparison:
    """See `dinomx_core.api.compare`."""
    if at not in AT:
        raise ConfigError([Problem(f'expected {" or ".join(AT)}, got "{at}"', "--at")])
    if not paths:
        raise ConfigError([Problem("name one run or more")])
    runs, absent = find_runs(paths)
    shown = chosen_figures(runs, figures)
    if at == "best" and shown and not judged(shown[0]):
        raise ConfigError(
            [Problem(f'more of "{shown[0]}" is not better, so it chooses no step; name a figure first', "--at")]
        )
    keys = chosen_keys(runs, by) if by else [key for key in differing(runs) if kind(key)]
    kinds: dict[str, list[Run]] = {}
    for run in runs:
        kinds.setdefault(json.dumps([run.values.get(key) for key in keys]), []).append(run)
    groups = [group_of(members, keys, shown, at) for members in kinds.values()]
    between = {key: [one.runs[0].values.get(key) for one in groups] for key in differing(runs) if kind(key)}
    between = {key: values for key, values in between.items() if len(groups) > 1 and not same(values)}
    warnings = list(fairness.warnings(groups, absent, shown, at, [key for key in differing(runs) if kind(key)]))
    return Comparison(keys, at, shown, groups, between, warnings)


def kind(key: str) -> bool:
    """Whether runs that differ in a key are of different kinds: it changes what is trained, and is no seed."""
    free = FREE.fullmatch(re.sub(r"^stage\.[^.]+\.", "", key)) and not key.endswith(STEPS)
    return not free and not SIDE.fullmatch(key)


def same(values: Iterable[Any]) -> bool:
    """Whether all values are equal, as JSON writes them."""
    return len({json.dumps(value) for value in values}) < 2


def differing(runs: Sequence[Run]) -> list[str]:
    """Keys that not all runs have with the same value."""
    keys = dict.fromkeys(key for run in runs for key in run.values)
    return [key for key in keys if not same(run.values.get(key) for run in runs)]


def chosen_keys(runs: Sequence[Run], by: Sequence[str]) -> list[str]:
    """Keys that were asked for, a table standing for those in it that differ. Raises ConfigError for unknown ones."""
    known = list(dict.fromkeys(key for run in runs for key in run.values))
    found, differ = dict[str, None](), differing(runs)
    for wanted in by:
        if wanted == SEED:
            raise ConfigError(
                [Problem("runs that differ in their seed alone are of one group; name another key", "--by")]
            )
        inside = [key for key in known if key == wanted or key.startswith(f"{wanted}.")]
        if not inside:
            hint = suggestion(wanted, known)
            if "did you mean" not in hint:
                hint = f"; they differ in: {', '.join(key for key in differ if kind(key)) or 'none'}"
            raise ConfigError([Problem(f'no run has the key "{wanted}"{hint}', "--by")])
        found.update(dict.fromkeys([key for key in inside if key in differ] or inside[:1]))
    return list(found)


def chosen_figures(runs: Sequence[Run], figures: Sequence[str]) -> list[str]:
    """Figures that were asked for, or all of which more is better and that are no part of another. Raises ConfigError for unknown ones."""
    there = list(dict.fromkeys(name for run in runs for name in run.figures))
    for wanted in figures:
        if wanted not in there:
            raise ConfigError(
                [Problem(f'no run has the figure "{wanted}"; there are: {", ".join(there) or "none"}', "--figure")]
            )
    return list(dict.fromkeys(figures)) or [name for name in there if judged(name) and name.count("/") < 2]


def group_of(runs: list[Run], keys: Sequence[str], figures: Sequence[str], at: str) -> Group:
    """Runs of one kind."""
    rows = [row_at(run, at, figures[0] if figures else "") for run in runs]
    found = {name: figure_of([value for _, value in finite(rows, name)]) for name in figures}
    steps = [row["step"] for row in rows if "step" in row]
    return Group({key: runs[0].values.get(key) for key in keys}, runs, found, steps)


def figure_of(values: list[float]) -> Figure | None:
    """Mean and spread."""
    if not values:
        return None
    return Figure(fmean(values), stdev(values) if len(values) > 1 else None, values)
