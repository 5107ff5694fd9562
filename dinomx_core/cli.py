"""The `dinomx` command: a thin skin over `dinomx_core.api`, and the only place that prints errors."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from dinomx_core.arguments import AsJson, Config, Out, Settings
from dinomx_core.cli_data import data, init
from dinomx_core.cli_doctor import doctor
from dinomx_core.cli_eval import evaluate
from dinomx_core.cli_plugin import plugin
from dinomx_core.cli_plugins import Commands
from dinomx_core.cli_sweep import compare, sweep
from dinomx_core.errors import ConfigError, DinomxError, Problem
from dinomx_core.planning.world import started

app = typer.Typer(
    name="dinomx",
    cls=Commands,
    help="Self-supervised training of vision transformers from one TOML file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(data, name="data")
app.add_typer(plugin, name="plugin")
app.command()(init)
app.command("eval")(evaluate)
app.command()(sweep)
app.command()(compare)
app.command()(doctor)


@app.callback()
def about() -> None:
    """Self-supervised training of vision transformers from one TOML file."""


@app.command()
def run(
    config: Config,
    set_: Settings = None,
    out: Out = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete a run of the same name and start anew")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint, or start where there is none")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress")] = False,
) -> None:
    """Train as the config says."""
    if overwrite and resume:
        raise ConfigError([Problem("--overwrite deletes the run that --resume goes on with; give one of them")])
    from dinomx_core import api
    from dinomx_core.progress import Silent, TextProgress

    plans = api.plans(config, overrides=set_ or [], out=out)
    world = plans[0].env.world
    first = world is None or world.rank == 0
    for warning in dict.fromkeys(warning for plan in plans if first for warning in plan.warnings):
        typer.echo(f"warning: {warning}", err=True)
    result = api.run(plans, overwrite=overwrite, resume=resume, progress=Silent() if quiet else TextProgress())
    if not first:
        return
    typer.echo(f"run folder   {result.folder}")
    typer.echo(f"load it      dinomx_core.load({str(result.folder)!r})")
    typer.echo(f"or with      transformers.AutoModel.from_pretrained({str(result.export)!r})")


@app.command()
def plan(
    config: Config,
    set_: Settings = None,
    out: Out = None,
    json_: AsJson = False,
    fit: Annotated[
        str, typer.Option("--fit", metavar="MEMORY", help="Propose what fits into so much a process, e.g. 24GiB")
    ] = "",
    world_size: Annotated[
        int, typer.Option("--world-size", min=0, help="Imagine so many processes; 0: those that there would be")
    ] = 0,
    device: Annotated[str, typer.Option("--device", help="Imagine a GPU, one a process, e.g. h200")] = "",
) -> None:
    """Show everything that a run would do, and do none of it."""
    from dinomx_core import api
    from dinomx_core.planning.devices import DEVICES, elsewhere, parse_bytes
    from dinomx_core.planning.plan import Env
    from dinomx_core.planning.show import fitting, lines

    if device and device not in DEVICES:
        raise ConfigError([Problem(f'expected one of {", ".join(DEVICES)}, got "{device}"', "--device")])
    try:
        memory = parse_bytes(fit) if fit else 0.0
    except ValueError as error:
        raise ConfigError([Problem(str(error), "--fit")]) from None
    there = DEVICES.get(device)
    made = api.plans(config, overrides=set_ or [], out=out, env=elsewhere(Env.here(), world_size, there))
    if memory:
        typer.echo("\n\n".join("\n".join(fitting(plan, memory)) for plan in made))
    elif json_:
        stages = {plan.stage: plan.to_json() for plan in made}
        typer.echo(json.dumps(stages if made[0].stage else stages[""], indent=1))
    else:
        typer.echo("\n\n".join("\n".join(lines(plan, there)) for plan in made))


@app.command()
def export(
    run_folder: Annotated[Path, typer.Argument(help="Run folder", show_default=False)],
    to: Annotated[Path, typer.Argument(help="Folder to write", show_default=False)],
    checkpoint: Annotated[str, typer.Option(help="last, best or a step")] = "last",
    network: Annotated[str, typer.Option(help="teacher (the moving average) or student")] = "teacher",
    format: Annotated[str, typer.Option(help="huggingface or onnx")] = "huggingface",
) -> None:
    """Write a checkpoint's backbone as a Hugging Face folder or as ONNX."""
    from dinomx_core import api

    done = api.export(run_folder, to, checkpoint=checkpoint, network=network, format=format)
    typer.echo(f"exported     {done['network']} of {done['checkpoint']} to {done['folder']}")
    if done["difference"] is not None:
        typer.echo(f"checked      features differ from torch's by {done['difference']:.1g} of the largest")


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Checkpoint of DINO, DINOv2, DINOv3 or timm", show_default=False)],
    to: Annotated[Path, typer.Argument(help="Folder to write", show_default=False)],
    heads: Annotated[int, typer.Option(help="Attention heads; 0: of 64 features each", min=0)] = 0,
) -> None:
    """Write a checkpoint of a reference code as a Hugging Face folder."""
    from dinomx_core import api

    done = api.convert(source, to, heads=heads)
    typer.echo(f"converted    {done['type']} to {done['folder']}: {done['report']}")
    for label, count in done["heads"].items():
        typer.echo(f"head         {label}: {count} tensors in heads.safetensors")


@app.command()
def embed(
    source: Annotated[Path, typer.Argument(help="Run, checkpoint, export, weights; or a config", show_default=False)],
    data: Annotated[
        Path, typer.Argument(help="Folder of images, or a manifest: .csv, .jsonl or .parquet", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option("--out", help="File to write (.npz, .parquet), or a folder of Parquet shards")
    ] = Path("embeddings.npz"),
    tokens: Annotated[str, typer.Option(help="cls, patch-mean or patches")] = "cls",
    batch_size: Annotated[
        int, typer.Option(help="Images a forward pass; 0: 64 on a GPU, 16 on a CPU, where each thread has one", min=0)
    ] = 0,
    processes: Annotated[int, typer.Option(help="Processes to start here, which share the shards", min=1)] = 1,
    shard_size: Annotated[int, typer.Option(help="Images a shard of the folder; 0: 10000", min=0)] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete what the folder holds of embeddings, and start anew")
    ] = False,
    path_column: Annotated[str, typer.Option(help="The manifest's column of paths [default: path]")] = "",
    pool: Annotated[
        str, typer.Option(help="Column of groups, such as patient: write the mean embedding of each, too")
    ] = "",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress")] = False,
) -> None:
    """Write embeddings of images, with their ids.

    Whole shards that a folder holds are kept, so the same command goes on where it was interrupted.
    """
    from dinomx_core import api
    from dinomx_core.progress import counter

    done = api.embed(
        source, data, out, tokens=tokens, batch_size=batch_size, processes=processes, shard_size=shard_size,
        overwrite=overwrite, path_column=path_column, pool=pool, progress=None if quiet else counter("images"),
    )  # fmt: skip
    if not done["finished"]:
        return  # other processes go on
    for note in done["notes"]:
        typer.echo(f"warning: {note}", err=True)
    for fault in done["unreadable"]:
        typer.echo(f"warning: left out: {fault}", err=True)
    pooled = done["pooled"]
    alone = pooled and pooled["file"] == str(out)
    shape = "" if alone else f" {'x'.join(map(str, done['shape']))}"
    typer.echo(f"embedded     {done['images']} images, {tokens}{shape}, in {out}")
    if pooled:
        typer.echo(f"pooled       {pooled['groups']} groups by {pooled['column']}, in {pooled['file']}")
    if pooled and pooled["left_out"]:
        typer.echo(f"left out     {', '.join(pooled['left_out'])}: not the same within every group")


@app.command()
def plugins(
    json_: AsJson = False,
    write_registry: Annotated[
        Path | None,
        typer.Option("--write-registry", metavar="FILE", help="Write what installed packages declare, as a registry"),
    ] = None,
) -> None:
    """List plugins and their components: installed, broken, and available."""
    from dinomx_core.declare.discover import discover
    from dinomx_core.declare.listing import as_json, as_registry, as_text

    registry = discover()
    if write_registry:
        try:
            write_registry.write_text(as_registry(registry), "utf-8")
        except OSError as error:
            message = f"{write_registry} cannot be written: {error.strerror}"
            raise ConfigError([Problem(message, "--write-registry")]) from None
        typer.echo(f"wrote        {write_registry}")
        return
    typer.echo(json.dumps(as_json(registry), indent=1) if json_ else as_text(registry))


def main() -> None:
    """Entry point of the console script."""
    try:
        app()
    except DinomxError as error:
        if isinstance(error, ConfigError) and not error.alone and (world := started(os.environ)) and world.local_rank:
            sys.exit(error.exit_code)  # the first process of each host tells what all of them have found
        text = f"{error.label}: {error}" if "\n" not in str(error) else f"{error.label}s:\n{error}"
        print(text, file=sys.stderr)
        sys.exit(error.exit_code)
