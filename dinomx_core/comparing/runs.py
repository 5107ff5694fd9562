"""What a run folder tells of its run, for a comparison."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import tomli

from dinomx_core.artifacts import read_rows
from dinomx_core.errors import DataError
from dinomx_core.folders import read_sweep

CURVE = ("start", "end", "warmup", "decay", "shape", "convention", "extra", "hold")
SEED = "run.seed"


@attrs.frozen
class Budget:
    """What a sweep has tried: combinations of its grid, and runs, of which each is one of a seed."""

    combinations: int
    runs: int


@attrs.frozen(eq=False)
class Run:
    """A run, of several stages the last one that has begun.

    values: resolved options by key, a schedule that is constant as a number; those of stages before it as "stage.NAME.KEY". rows: of
    evaluations. steps, planned: that were done, and are to be done. images, seconds: of all stages, of steps and evaluations that count.
    budget: of the sweep that it is of.
    """

    folder: Path
    values: dict[str, Any]
    rows: list[dict[str, Any]]
    steps: int
    planned: int
    images: int
    seconds: float
    plan: dict[str, Any]
    missing: tuple[str, ...]
    budget: Budget | None

    @property
    def seed(self) -> int:
        """`run.seed`."""
        return self.values.get(SEED, 0)

    @property
    def finished(self) -> bool:
        """Whether all steps of all stages are done."""
        return self.steps >= self.planned and not self.missing

    @property
    def place(self) -> str:
        """Number and kind of its processes."""
        return f"{self.plan['batch']['world_size']} {self.plan['device']}"

    @property
    def figures(self) -> list[str]:
        """Names of what was evaluated, in order."""
        return list(dict.fromkeys(name for row in self.rows for name in row if name not in ("step", "seconds")))


def find_runs(paths: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """The runs that paths mean, each once, and names of a sweep's runs that have not begun. Raises DataError for a path that is none."""
    folders: dict[Path, Path] = {}
    absent = []
    for path in paths:
        sweep = read_sweep(path)
        for place in [path / run["name"] for run in sweep["runs"]] if sweep else [path]:
            if sweep and not stages_of(place):
                absent.append(str(place))
            else:
                folders.setdefault(place.resolve(), place)
    if not folders:
        raise DataError(f"{', '.join(map(str, paths))}: none of its runs has begun")
    return [read_run(folder) for folder in folders.values()], absent


def stages_of(folder: Path) -> list[Path]:
    """Folders of a run's stages that have begun, in their order; that of the run itself where it has none."""
    if (folder / "plan.json").is_file():
        return [folder]
    found = [path.parent for path in folder.glob("*/plan.json")] if folder.is_dir() else []
    staged = [path for path in found if read_plan(path).get("stage") == path.name]
    names = stage_names(staged[0]) if staged else []
    return sorted(staged, key=lambda path: names.index(path.name) if path.name in names else len(names))


def stage_names(stage: Path) -> list[str]:
    """All stages of the config that a stage's folder keeps."""
    try:
        tables = tomli.loads((stage / "config.toml").read_text("utf-8")).get("stage", [])
        return [table["name"] for table in tables]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def read_plan(folder: Path) -> dict[str, Any]:
    """`plan.json`. Raises DataError where it cannot be read."""
    file = folder / "plan.json"
    try:
        plan = json.loads(file.read_text("utf-8"))
        if {"values", "steps", "batch", "device", "env", "data"} <= set(plan):
            return plan
        raise ValueError("it misses something")
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{file}: cannot be read as a plan ({error}); leave the run out") from None


def read_run(folder: Path) -> Run:
    """One run. Raises DataError where the folder is none."""
    stages = stages_of(folder)
    if not stages:
        raise DataError(f"{folder}: is no run folder (no plan.json in it){hint(folder)}")
    plans = [read_plan(stage) for stage in stages]
    values = dict[str, Any]()
    images, seconds, done = 0, 0.0, 0
    for stage, plan in zip(stages, plans):
        steps = read_rows(stage / "metrics.jsonl")
        rows = read_rows(stage / "evaluations.jsonl")
        done = max((row["step"] + 1 for row in steps), default=0)
        images += done * plan["batch"]["images"]
        seconds += sum(row.get("seconds") or 0.0 for row in [*steps, *rows])
        prefix = "" if plan is plans[-1] else f"stage.{stage.name}."
        values.update({f"{prefix}{key}": value for key, value in values_of(plan).items()})
    names = stage_names(stages[-1]) if plans[-1].get("stage") and stages != [folder] else []
    missing = tuple(name for name in names if name not in {stage.name for stage in stages})
    return Run(
        folder, values, rows, done, plans[-1]["steps"], images, seconds, plans[-1], missing, budget_of(folder)
    )  # fmt: skip


def values_of(plan: dict[str, Any]) -> dict[str, Any]:
    """Resolved options by key. What a schedule has beside its peak is left out where it is constant, and its peak has its name."""
    given = {key: told["value"] for key, told in plan["values"].items()}
    constant = [
        key.removesuffix(".shape") for key, value in given.items() if key.endswith(".shape") and value == "constant"
    ]
    left_out = {f"{schedule}.{part}" for schedule in constant for part in CURVE}
    return {key.removesuffix(".peak"): value for key, value in given.items() if key not in left_out}


def budget_of(folder: Path) -> Budget | None:
    """What was tried in the sweep that a run is of."""
    sweep = read_sweep(folder.absolute().parent)
    if sweep is None or folder.absolute().name not in {run["name"] for run in sweep["runs"]}:
        return None
    tried = [run for run in sweep["runs"] if stages_of(folder.absolute().parent / run["name"])]
    return Budget(len({json.dumps(run.get("values", {}), sort_keys=True) for run in tried}), len(tried))


def hint(folder: Path) -> str:
    """The runs in a folder that was given in place of them, as the end of a message."""
    if not folder.exists():
        return "; there is nothing of that name"
    for above in (folder.parent, folder.parent.parent):
        if (above / "plan.json").is_file():
            return f"; it is a part of the run {above}"
    found = sorted(path.name for path in folder.iterdir() if stages_of(path)) if folder.is_dir() else []
    return f"; it holds the runs {', '.join(found)}: name them" if found else ""


def finite(rows: Sequence[dict[str, Any]], name: str) -> Iterator[tuple[dict[str, Any], float]]:
    """Rows with a value of a figure; one that was not finite is written as null."""
    for row in rows:
        value = row.get(name)
        if isinstance(value, (int, float)) and math.isfinite(value):
            yield row, float(value)


def row_at(run: Run, at: str, chooser: str) -> dict[str, Any]:
    """Figures of a run: "last": the newest of each; "best": those of the step, the earliest, at which `chooser` is largest."""
    if at == "last":
        return {name: value for row in run.rows for name, value in row.items()}
    found = list(finite(run.rows, chooser))
    return max(found, key=lambda pair: pair[1])[0] if found else {}
