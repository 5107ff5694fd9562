"""The commands around data: `dinomx data CONFIG`, `dinomx data pack`, `dinomx init`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dinomx_core.arguments import AsJson, Config, Settings
from dinomx_core.errors import ConfigError, Problem

LOOK = "look"


class LooksFirst(TyperGroup):
    """A group whose first word may be the config itself: `dinomx data cells.toml` is `dinomx data look cells.toml`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the name of the command before arguments that name none."""
        if args and args[0] not in (*self.commands, "--help"):
            args = [LOOK, *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        """Both ways to call it."""
        formatter.write_usage(ctx.command_path, "CONFIG [OPTIONS]")
        formatter.write_usage(ctx.command_path, "pack CONFIG OUT [OPTIONS]")

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The options of looking, then the commands."""
        looking = self.commands[LOOK]
        with type(ctx)(
            looking, info_name=LOOK, parent=ctx
        ) as inner:  # typer has a click of its own, or the installed one
            looking.format_options(inner, formatter)
        self.format_commands(ctx, formatter)


data = typer.Typer(
    cls=LooksFirst,
    help="Measure the images of a config and draw what the model will see of them; `pack` writes them into tars.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@data.command(LOOK, hidden=True)
def look(
    config: Config,
    set_: Settings = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the report [default: data-report/NAME]")] = None,
    images: Annotated[int, typer.Option("--images", min=1, help="Images to measure, evenly spread")] = 2000,
    all_: Annotated[bool, typer.Option("--all", help="Measure all images")] = False,
    sheet: Annotated[int, typer.Option("--sheet", min=1, help="Images on the contact sheet")] = 8,
    channels: Annotated[
        str, typer.Option("--channels", help="Channels to show as red, green, blue (or one as grey), such as 0,3,5")
    ] = "",
    statistics: Annotated[
        Path | None,
        typer.Option("--statistics", help="JSON file to write for `z-score`: mean and std of all images, and by group"),
    ] = None,
    json_: AsJson = False,
    no_images: Annotated[bool, typer.Option("--no-images", help="Numbers only: no sheet, no pictures")] = False,
    hash_ids: Annotated[
        bool, typer.Option("--hash-ids", help="No names of files, groups and classes: hashes in their place")
    ] = False,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Instead of run.seed, for the crops")] = None,
) -> None:
    """Measure the images of a config and draw a contact sheet of what the model will see."""
    from dinomx_core import api
    from dinomx_core.progress import counter

    report = api.measure(
        config, overrides=set_ or [], out=out, images=0 if all_ else images, sheet=sheet, channels=numbers(channels),
        statistics=statistics, pictures=not no_images, hash_ids=hash_ids, seed=seed, progress=counter("images"),
    )  # fmt: skip
    if json_:
        typer.echo(json.dumps(report, indent=1))
        return
    from dinomx_core.training.look.words import lines

    for warning in report["warnings"]:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo("\n".join(lines(report)))


def numbers(text: str) -> tuple[int, ...]:
    """ "0,3,5" -> (0, 3, 5). Raises ConfigError for anything else."""
    try:
        found = tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        found = (-1,)
    if len(found) > 3 or any(number < 0 for number in found):
        raise ConfigError([Problem(f'expected one to three numbers such as 0,3,5, got "{text}"', "--channels")])
    return found


@data.command()
def pack(
    config: Config,
    out: Annotated[Path, typer.Argument(help="Folder to write the tars into", show_default=False)],
    shard_size: Annotated[int, typer.Option("--shard-size", min=1, help="Images a tar")] = 1000,
    set_: Settings = None,
) -> None:
    """Write the config's images into tars, which the data set `shards` reads; goes on where it was cut off."""
    from dinomx_core import api

    done = api.pack(config, out, overrides=set_ or [], shard_size=shard_size, progress=counted())
    for tar in done["tars"]:
        for fault in tar["left_out"]:
            typer.echo(f"warning: left out: {fault}", err=True)
    written = sum(tar["samples"] for tar in done["tars"])
    typer.echo(f"packed       {written} images into {sum(tar['samples'] > 0 for tar in done['tars'])} tars in {out}")
    typer.echo(f'read them    [data] name = "shards", path = {json.dumps(str(out))}')


def counted() -> Callable[[int, int], None]:
    """What a terminal shows of images that are done."""
    from dinomx_core.progress import counter

    return counter("images")


def init(
    path: Annotated[str, typer.Argument(help="Folder of images, manifest, tars, .npz or data set", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", help="File to write [default: NAME.toml]")] = None,
    steps: Annotated[int, typer.Option("--steps", min=0, help="Training steps; 0: by the number of images")] = 0,
    domain: Annotated[
        str, typer.Option("--domain", help="ct, mri, xray, microscopy, multispectral or natural; left out: a guess")
    ] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there")] = False,
) -> None:
    """Look at images and at this machine, and write a config that trains."""
    from dinomx_core import api

    done = api.init(path, out=out, steps=steps, domain=domain, overwrite=overwrite)
    for line in done["seen"]:
        typer.echo(f"saw          {line}")
    for line in done["notes"]:
        typer.echo(f"note         {line}")
    typer.echo(f"wrote        {done['file']}")
    for command in ("data", "plan", "run"):
        typer.echo(f"next         dinomx {command} {done['file']}")
