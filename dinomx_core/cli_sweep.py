"""`dinomx sweep` and `dinomx compare`: many runs, and what they tell."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from dinomx_core.arguments import AsJson, Config, Settings
from dinomx_core.errors import ConfigError, Problem, TrainingError


def sweep(
    config: Config,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            "--grid", metavar="KEY=VALUE,…", help="Values that a key takes, e.g. --grid optimizer.lr=1e-4,1e-3"
        ),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", help="Runs of each combination: run.seed and those after it")] = 1,
    set_: Settings = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the sweep [default: NAME-sweep in run.out]")
    ] = None,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="Write a script for sbatch, a task a run, and train nothing")
    ] = False,
    print_: Annotated[bool, typer.Option("--print", help="Print the runs' commands, and do nothing")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress")] = False,
) -> None:
    """Train every combination of values with every seed, one after another.

    All are planned before the first starts. The same command again leaves what is done and goes on with the rest.
    """
    if slurm and print_:
        raise ConfigError([Problem("--slurm writes a script, --print writes nothing; give one of them")])
    from dinomx_core import api
    from dinomx_core.progress import Silent, TextProgress

    mode = "slurm" if slurm else "print" if print_ else "run"
    done = api.sweep(
        config, grid or [], seeds=seeds, overrides=set_ or [], out=out, mode=mode,
        command=shlex.join(["dinomx", *sys.argv[1:]]), progress=Silent() if quiet else TextProgress(),
    )  # fmt: skip
    if print_:
        typer.echo("\n".join(run["command"] for run in done["runs"]))
        return
    if slurm:
        typer.echo(f"written      {done['script']}: {len(done['runs'])} tasks; look it through, then sbatch it")
        return
    failed = [run for run in done["runs"] if run["state"] == "failed"]
    typer.echo(f"done         {len(done['runs']) - len(failed)} of {len(done['runs'])} runs, in {done['folder']}")
    typer.echo(f"compare      dinomx compare {shlex.quote(done['folder'])}")
    if failed:
        told = "\n".join(f"{run['folder']}: {run['error']}" for run in failed)
        raise TrainingError(
            f"{len(failed)} of {len(done['runs'])} runs failed; the same command tries them again\n{told}"
        )


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, and folders of sweeps", show_default=False)],
    by: Annotated[
        list[str] | None, typer.Option("--by", metavar="KEY", help="Group by this key [default: all that differ]")
    ] = None,
    figure: Annotated[
        list[str] | None, typer.Option("--figure", metavar="FIGURE", help="Show this figure, e.g. knn/accuracy@20")
    ] = None,
    at: Annotated[str, typer.Option("--at", help="last, or best: each run's best step by the first figure")] = "last",
    json_: AsJson = False,
) -> None:
    """Compare runs: means and spreads over seeds, what they cost, where they differ, and what is unfair about it."""
    from dinomx_core import api

    found = api.compare(runs, by=by or [], figures=figure or [], at=at)
    if json_:
        typer.echo(json.dumps(found.to_json(), indent=1))
        return
    from dinomx_core.comparing.words import about, aligned, cells, differences

    heads, rows = cells(found)
    typer.echo(about(found))
    if sys.stdout.isatty():
        drawn(heads, rows)
    else:
        typer.echo("\n".join(aligned(heads, rows)))
    if found.differing:
        typer.echo("\n".join(["differ in", *differences(found)]))
    for warning in found.warnings:
        typer.echo(f"warning: {warning}")


def drawn(heads: list[str], rows: list[list[Any]]) -> None:
    """The table, fitted to a terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False).print(table)
