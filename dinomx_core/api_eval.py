"""What `dinomx eval` does, from Python. Importing it imports no torch."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from dinomx_core.artifacts import AFTER, as_line
from dinomx_core.declare.discover import discover
from dinomx_core.errors import ConfigError, Problem
from dinomx_core.planning.best import fault_of_figure
from dinomx_core.planning.measures import Measures, check_measures, read_measures
from dinomx_core.planning.subjects import ALL, Subject, find_subjects

LABEL_FREE = "rankme/rankme"
DEVICES = ("auto", "cpu", "cuda")


def evaluate(
    source: str | Path,
    config: str | Path | dict[str, Any],
    *,
    overrides: Iterable[str] = (),
    checkpoint: str = "last",
    network: str = "teacher",
    by: str = "",
    out: str | Path | None = None,
    device: str = "auto",
    plugins: Iterable[ModuleType] = (),
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measure a model with the [evaluate.NAME] tables of a config: {"rows": one a checkpoint, "best", "file": that they were appended to}.

    source: a run, checkpoint, export, folder or file of weights, or a config, whose backbone is taken as it starts. config: path, or
    tables as a dict, which may hold nothing but [evaluate.NAME] and [intensity]; without the latter the model's own is taken. checkpoint:
    of a run: "last", "best", a step, or "all". by: the figure that chooses among all (default "rankme/rankme"); "best" is then {"by",
    "checkpoint", "step", "value"}, else None. out: file for the rows, in place of the run's `evaluations-after.jsonl`. device: "auto",
    "cpu" or "cuda". note: told what to warn of. Raises ConfigError and DataError, most of them before a model is built.
    """
    plugins = list(plugins)
    registry = discover(plugins)
    measures = read_measures(config, overrides, registry)
    by = chooser(by, checkpoint, measures)
    if device not in DEVICES:
        raise ConfigError([Problem(f'expected one of {", ".join(DEVICES)}, got "{device}"', "--device")])

    def planned(path: Path) -> Any:
        from dinomx_core.api import plan_alone

        return plan_alone(path, plugins)

    subjects = find_subjects(Path(source).expanduser(), checkpoint, network, registry, planned)
    for warning in dict.fromkeys([*subjects[0].notes, *check_measures(measures, subjects[0], device)]):
        note(warning)
    file = file_for(subjects[0], out, note)
    rows = list(measured_rows(subjects, network, measures, device, file, note))
    return {"rows": rows, "best": best_of(rows, by) if by else None, "file": str(file) if file else None}


def chooser(by: str, checkpoint: str, measures: Measures) -> str:
    """The figure that chooses, "" where nothing is to choose. Raises ConfigError where it cannot."""
    if checkpoint != ALL:
        if by:
            raise ConfigError([Problem("chooses among checkpoints; add --checkpoint all", "--by")])
        return ""
    if fault := fault_of_figure(by or LABEL_FREE, measures.evaluate):
        hint = "" if by else f"; {LABEL_FREE} chooses where no figure is named"
        raise ConfigError([Problem(fault + hint, "--by")])
    return by or LABEL_FREE


def file_for(subject: Subject, out: str | Path | None, note: Callable[[str], None]) -> Path | None:
    """Where rows go: `out`, or beside the run that the model is of. Raises ConfigError for an `out` that cannot be."""
    if out is not None:
        place = Path(out).expanduser()
        if place.is_dir() or not place.absolute().parent.is_dir():
            raise ConfigError([Problem(f"{place} is a folder, or lies in none; name a file", "--out")])
        return place
    if subject.run is None:
        return None
    if not os.access(subject.run, os.W_OK):
        note(f"{subject.run} cannot be written to: the figures are not kept; name a file with --out")
        return None
    return subject.run / f"{AFTER}.jsonl"


def measured_rows(
    subjects: list[Subject],
    network: str,
    measures: Measures,
    device: str,
    file: Path | None,
    note: Callable[[str], None],
) -> Iterable[dict[str, Any]]:
    """A row a model, each written as soon as it is there."""
    import torch

    from dinomx_core.training.evaluating import evaluators_of, measure

    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError([Problem(f'torch {torch.__version__} cannot use "cuda" here', "--device")])
    where = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    evaluators = evaluators_of(measures)
    for subject in subjects:
        row = measure(subject, network, measures, evaluators, where, note)
        if file:
            with file.open("a", encoding="utf-8") as opened:
                opened.write(as_line(row))
        yield row


def best_of(rows: list[dict[str, Any]], by: str) -> dict[str, Any]:
    """Which row has most of a figure, the earliest of equal ones. Raises ConfigError where there is no such figure."""
    if by not in rows[0]:
        there = ", ".join(name for name in rows[0] if name.startswith(by.partition("/")[0] + "/"))
        raise ConfigError([Problem(f'there is no figure "{by}"; there are: {there}', "--by")])
    finite = [row for row in rows if math.isfinite(row[by])]
    if not finite:
        raise ConfigError([Problem(f'"{by}" is not finite at any checkpoint; name another figure', "--by")])
    best = max(finite, key=lambda row: row[by])
    return {"by": by, "checkpoint": best["checkpoint"], "step": best["step"], "value": best[by]}
