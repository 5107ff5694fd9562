"""What `dinomx sweep` and `dinomx compare` do, from Python. Importing it imports no torch."""

from __future__ import annotations

import copy
import gc
import os
import shlex
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from dinomx_core.artifacts import write_atomically
from dinomx_core.comparing.groups import Comparison
from dinomx_core.comparing.groups import compare as compared
from dinomx_core.declare.discover import discover
from dinomx_core.errors import ConfigError, DinomxError, Problem, Stopped
from dinomx_core.planning import document
from dinomx_core.planning.grid import FLAG, combinations, read_grid
from dinomx_core.planning.world import started
from dinomx_core.progress import Progress, Silent
from dinomx_core.sweeping import SweepRun, check_runs, in_grid, record, settings_of, slurm_script, write

MODES = ("run", "slurm", "print")


def sweep(
    config: str | Path | dict[str, Any],
    grid: Iterable[str] | Mapping[str, Sequence[Any]] = (),
    *,
    seeds: int = 1,
    overrides: Iterable[str] = (),
    out: str | Path | None = None,
    mode: str = "run",
    command: str = "",
    plugins: Iterable[ModuleType] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train every combination of a grid with every seed, one after another; what is done is left as it is, what was cut goes on.

    config: path, or tables as a dict. grid: {"optimizer.lr": [1e-4, 1e-3]}, or "optimizer.lr=1e-4,1e-3" texts. seeds: how many; they
    are `run.seed` of the config and those after it, the same for each combination. overrides: "a.b=VALUE" texts for all runs. out:
    the sweep's folder (default: NAME-sweep in `run.out`). mode: "run"; "slurm": write an sbatch script instead; "print": write
    nothing. command: what `sweep.json` names. progress: watches the runs.

    Returns {"folder", "script" (of Slurm, or None), "runs": [{"name", "values", "seed", "folder", "command", "state" ("done", "failed" or
    "planned"), "error"}]}. Every run is planned before the first one starts: raises ConfigError with every problem found; Stopped when told
    to stop. A run that fails is told and named in the result, and the others go on.
    """
    if mode not in MODES:
        raise ConfigError([Problem(f'expected one of {", ".join(MODES)}, got "{mode}"', "mode")])
    if mode == "run" and (world := started(os.environ)) and world.size > 1:
        message = f"a sweep starts its runs itself, and {world.words}; call it once, or write a script with --slurm"
        raise ConfigError([Problem(message)])
    folder, runs, axes = planned(config, grid, seeds, list(overrides), out, list(plugins))
    if mode != "print":
        check_runs(runs)
        about = record(folder, axes, runs, command)
        write(folder, about, runs[0].plans[0].source.text)
    script = None
    if mode == "slurm":
        script = folder / "sweep.sbatch"
        (folder / "slurm").mkdir(exist_ok=True)
        write_atomically(script, slurm_script(folder, runs))
    place = str(config) if not isinstance(config, dict) else str(folder / "config.toml")
    told = [
        {
            "name": run.name, "values": run.combination.values, "seed": run.seed, "folder": str(run.folder),
            "command": shlex.join(["dinomx", *run.arguments(place)]), "state": "planned", "error": "",
        }
        for run in runs
    ]  # fmt: skip
    if mode == "run":
        train(runs, told, folder, progress or Silent())
    return {"folder": str(folder), "script": str(script) if script else None, "runs": told}


def planned(
    config: str | Path | dict[str, Any],
    grid: Iterable[str] | Mapping[str, Sequence[Any]],
    seeds: int,
    overrides: list[str],
    out: str | Path | None,
    plugins: list[ModuleType],
) -> tuple[Path, list[SweepRun], list[Any]]:
    """The sweep's folder, its runs, worked out, and the axes of its grid. Raises ConfigError with every problem found."""
    from dinomx_core.api import in_stages, plans

    if seeds < 1:
        raise ConfigError([Problem(f"expected one or more, got {seeds}", "--seeds")])
    axes = read_grid(grid, overrides)
    if not axes and seeds == 1:
        raise ConfigError([Problem("nothing to sweep over; give --grid KEY=VALUE,VALUE or --seeds N")])
    base, folder = base_of(config, overrides, plugins, out)
    runs, problems = list[SweepRun](), dict[Problem, list[str]]()
    every = combinations(axes)
    for combination in every:
        for seed in range(base, base + seeds):
            name, settings = settings_of(combination, seed)
            try:
                made = plans(config, overrides=[*overrides, *settings], out=folder, plugins=plugins)
            except ConfigError as error:
                for problem in in_grid(error, combination):
                    problems.setdefault(problem, []).append(combination.words)
                break  # the other seeds have the same
            runs.append(SweepRun(name, combination, seed, made))
    if problems:
        words = [combination.words for combination in every]
        raise ConfigError([
            problem if problem.place.startswith(FLAG) else in_stages(problem, found, words, "run")
            for problem, found in problems.items()
        ])  # fmt: skip
    return folder, runs, axes


def base_of(
    config: str | Path | dict[str, Any], overrides: list[str], plugins: list[ModuleType], out: str | Path | None
) -> tuple[int, Path]:
    """The first seed, and the sweep's folder."""
    if isinstance(config, dict):
        parsed, stem = document.Document(copy.deepcopy(config), {(): "config"}), "run"
    else:
        parsed, stem = document.parse(document.read_text(Path(config)), str(config)), Path(config).stem
    tables = next(iter(document.load(parsed, discover(plugins), overrides).values()))
    run = tables.data.get("run")
    run = run if isinstance(run, dict) else {}
    seed = run.get("seed", 0)
    place = Path(str(run.get("out", "runs"))) / f"{run.get('name', stem)}-sweep" if out is None else Path(out)
    return seed if isinstance(seed, int) and seed >= 0 else 0, place.expanduser()


def train(runs: Sequence[SweepRun], told: Sequence[dict[str, Any]], folder: Path, watcher: Progress) -> None:
    """Train runs one after another, and note in `told` what became of each. Raises Stopped when told to stop."""
    from dinomx_core.api import run as run_one

    for number, (run, row) in enumerate(zip(runs, told), 1):
        watcher.note(f"run {number} of {len(runs)}: {run.name}")
        try:
            run_one(run.plans, resume=True, progress=watcher)
            row["state"] = "done"
        except Stopped as error:
            done = sum(other["state"] == "done" for other in told)
            raise Stopped(f"{error}; {done} of {len(runs)} runs of {folder} are done") from None
        except Exception as error:  # whatever it is, the others can go on
            ours = isinstance(error, DinomxError)
            row.update(state="failed", error=str(error) if ours else f"{type(error).__name__}: {error}")
            watcher.note(f"failed: {error}" if ours else f"failed: {traceback.format_exc()}")
        gc.collect()  # networks, before others are built


def compare(
    runs: str | Path | Iterable[str | Path],
    *,
    by: Iterable[str] = (),
    figures: Iterable[str] = (),
    at: str = "last",
) -> Comparison:
    """Figures of runs by what they differ in, with what makes a comparison unfair. Reads run folders only.

    runs: run folders, or folders of sweeps, which stand for their runs; of stages the last is compared. by: keys whose values make
    groups ("optimizer.lr"), () for all that differ but `run.seed` and what changes nothing that is computed. figures: those of the runs'
    evaluations, () for all of which more is better. at: "last", or "best": of each run the step at which the first figure is largest.

    `.groups`, `.differing`, `.warnings`; `.to_json()` gives all of it as plain data. Raises DataError for what is no run, ConfigError
    for an unknown key or figure.
    """
    paths = [runs] if isinstance(runs, (str, Path)) else list(runs)
    return compared([Path(path).expanduser() for path in paths], list(by), list(figures), at)
