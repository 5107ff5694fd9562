"""`dinomx eval`: measuring a model that is there."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from dinomx_core.arguments import AsJson, Settings


def evaluate(
    source: Annotated[Path, typer.Argument(help="Run, checkpoint, export, weights; or a config", show_default=False)],
    config: Annotated[Path, typer.Argument(help="TOML file with [evaluate.NAME] tables", show_default=False)],
    set_: Settings = None,
    checkpoint: Annotated[str, typer.Option("--checkpoint", help="Of a run: last, best, a step, or all")] = "last",
    network: Annotated[str, typer.Option("--network", help="teacher (the moving average) or student")] = "teacher",
    by: Annotated[
        str, typer.Option("--by", help="Figure that chooses among all checkpoints [default: rankme/rankme]")
    ] = "",
    json_: AsJson = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="File to append to [default: evaluations-after.jsonl of the run]")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda")] = "auto",
) -> None:
    """Measure a run, checkpoint, export or plain model with the [evaluate.NAME] tables of a config."""
    from dinomx_core import api

    done = api.evaluate(
        source, config, overrides=set_ or [], checkpoint=checkpoint, network=network, by=by, out=out, device=device,
        note=lambda text: typer.echo(f"warning: {text}", err=True),
    )  # fmt: skip
    if json_:
        from dinomx_core.artifacts import finite

        typer.echo(json.dumps({**done, "rows": [finite(row) for row in done["rows"]]}, indent=1))
        return
    typer.echo("\n".join(table(done["rows"])))
    if best := done["best"]:
        typer.echo(f"best         {best['checkpoint']} by {best['by']}: {best['value']:.4f}")
    if done["file"]:
        typer.echo(f"written      {done['file']}")


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A line a figure, a column a checkpoint."""
    first = rows[0]
    yield f"measured     {first['network']} of {first['model']}"
    figures = list(dict.fromkeys(name for row in rows for name in row if "/" in name and name != "model"))
    width = max(len(name) for name in (*figures, "checkpoint"))
    heads = [str(row["checkpoint"] or "-") for row in rows]
    columns = [max(10, len(head)) for head in heads]
    yield "  ".join(["checkpoint".ljust(width), *(head.rjust(size) for head, size in zip(heads, columns))])
    for name in figures:
        values = (as_text(row.get(name)) for row in rows)
        yield "  ".join([name.ljust(width), *(value.rjust(size) for value, size in zip(values, columns))])


def as_text(value: float | None) -> str:
    """A figure in four decimals, whole numbers without."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.0f}" if value == int(value) and abs(value) > 1 else f"{value:.4f}"
