"""A sweep: every combination of a grid with every seed, worked out before the first run starts, and its folder."""

import hashlib
import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs

from dinomx_core.artifacts import RunFolder, write_atomically
from dinomx_core.errors import ConfigError, Problem
from dinomx_core.folders import SWEEP, read_sweep
from dinomx_core.planning.grid import FLAG, Axis, Combination
from dinomx_core.planning.plan import Plan
from dinomx_core.planning.resume import differences

CONFIG = "config.toml"


@attrs.frozen
class SweepRun:
    """One run: its name in the sweep's folder, the values of the grid, its seed, and a plan a stage."""

    name: str
    combination: Combination
    seed: int
    plans: list[Plan] = attrs.field(repr=False)

    @property
    def folder(self) -> Path:
        """Where it is written; stages lie below it."""
        return self.plans[0].run_dir.parent if self.plans[0].stage else self.plans[0].run_dir

    def arguments(self, config: str) -> list[str]:
        """What `dinomx` is called with to train it, or to go on with it."""
        settings = [word for setting in self.plans[0].source.settings for word in ("--set", setting)]
        return ["run", config, *settings, "--resume"]


def settings_of(combination: Combination, seed: int) -> tuple[str, list[str]]:
    """A run's name, and what is set for it."""
    name = f"{combination.words}_seed={seed}".lstrip("_")
    return name, [*combination.settings, f"run.seed={seed}", f"run.name={json.dumps(name)}"]


def in_grid(error: ConfigError, combination: Combination) -> list[Problem]:
    """Problems of a combination's plan, those of its values at the grid that they were given by."""
    ours = {f"--set {setting}": f"{FLAG} {setting}" for setting in combination.settings}
    return [attrs.evolve(problem, place=ours.get(problem.place, problem.place)) for problem in error.problems]


def check_runs(runs: Iterable[SweepRun]) -> None:
    """Raise ConfigError, with every problem, where what is in a run's folder cannot be gone on with."""
    problems: list[Problem] = []
    for run in runs:
        for plan in run.plans:
            file = plan.run_dir / "plan.json"
            try:
                RunFolder.check(plan, overwrite=True)
                if file.exists():
                    problems += differences(plan, json.loads(file.read_text("utf-8")), str(file))
            except ConfigError as error:
                problems += error.problems
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                problems.append(Problem(f"cannot be read as a plan ({error}); delete the run", place=str(file)))
    if problems:
        raise ConfigError(problems)


def record(folder: Path, axes: Sequence[Axis], runs: Sequence[SweepRun], command: str) -> dict[str, Any]:
    """What `sweep.json` says, with the runs that a sweep over the same keys has in the folder already. Raises ConfigError where something
    else is there."""
    source = runs[0].plans[0].source
    ours: dict[str, Any] = {
        "config": source.place,
        "digest": digest_of(source.text),
        "command": command,
        "grid": {axis.key: list(axis.values) for axis in axes},
        "seeds": list(dict.fromkeys(run.seed for run in runs)),
        "runs": [{"name": run.name, "values": run.combination.values, "seed": run.seed} for run in runs],
    }
    if not folder.is_dir() or not any(folder.iterdir()):
        return ours
    before = read_sweep(folder)
    if before is None:
        raise ConfigError([Problem(f"{folder} holds other files; choose another folder", "--out")])
    if list(before["grid"]) != list(ours["grid"]):
        over = ", ".join(before["grid"]) or "seeds alone"
        raise ConfigError([Problem(f"{folder} holds a sweep over {over}; choose another folder", "--out")])
    grid = {key: list(dict.fromkeys([*before["grid"][key], *values])) for key, values in ours["grid"].items()}
    names = {run["name"] for run in before["runs"]}
    return {
        **ours,
        "grid": grid,
        "seeds": list(dict.fromkeys([*before["seeds"], *ours["seeds"]])),
        "runs": [*before["runs"], *(run for run in ours["runs"] if run["name"] not in names)],
    }


def digest_of(text: str) -> str:
    """Stands for a config's text."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def write(folder: Path, about: dict[str, Any], text: str) -> None:
    """`sweep.json`, and the config as it was given."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / SWEEP, json.dumps(about, indent=1) + "\n")
    write_atomically(folder / CONFIG, text)


SCRIPT = """\
#!/bin/bash
#SBATCH --job-name={job}
#SBATCH --array=0-{last}
#SBATCH --output="{logs}/%a-%A.log"
#SBATCH --open-mode=append
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task={cpus}
#SBATCH --mem=64G
#SBATCH --gres=gpu:{gpus}
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --signal=USR1@120
# A task a run. Two minutes before its time is up a run saves and its task is queued again; a run that is done is left as it is.
# Adapt the lines above, and how dinomx is found here, such as: source .venv/bin/activate

cd {cwd} || exit 1
case "$SLURM_ARRAY_TASK_ID" in
{cases}
*) echo "there is no run $SLURM_ARRAY_TASK_ID" >&2; exit 2 ;;
esac

srun dinomx "${{run[@]}}"
code=$?
if [ $code -eq 4 ]; then scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"; fi
exit $code
"""


def slurm_script(folder: Path, runs: Sequence[SweepRun]) -> str:
    """An array of as many tasks as runs, in their order."""
    processes = max(run.plans[0].batch.world_size for run in runs)
    config, here = str((folder / CONFIG).absolute()), str(Path.cwd())
    cases = "\n".join(f"{number}) run=({shlex.join(run.arguments(config))}) ;;" for number, run in enumerate(runs))
    logs = str((folder / "slurm").absolute())
    job = "".join(mark if mark.isalnum() or mark in "._-" else "-" for mark in folder.absolute().name)
    return SCRIPT.format(
        job=job, last=len(runs) - 1, cpus=8 * processes, gpus=processes, logs=logs.replace("%", "%%"), cwd=shlex.quote(here),
        cases=cases,
    )  # fmt: skip
