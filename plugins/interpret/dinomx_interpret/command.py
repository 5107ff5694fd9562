"""`dinomx explain SOURCE IMAGES...`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from dinomx_core import ConfigError
from dinomx_core.arguments import AsJson
from dinomx_core.cli_data import numbers
from dinomx_core.errors import Problem


def explain(
    source: Annotated[
        Path,
        typer.Argument(
            help="Run folder, checkpoint, export, config, Hugging Face folder, or checkpoint file of a reference code",
            show_default=False,
        ),
    ],
    images: Annotated[list[Path], typer.Argument(help="Image files, folders, manifests", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write [default: explain/NAME]")] = None,
    size: Annotated[
        str, typer.Option("--size", metavar="N or HxW", help="Pixels of the shorter side, or height x width")
    ] = "",
    block: Annotated[int, typer.Option("--block", help="Whose attention, from 1; -1: the last block")] = -1,
    channels: Annotated[
        str, typer.Option("--channels", help="Channels to show as red, green, blue (or one as grey), such as 0,3,5")
    ] = "",
    clusters: Annotated[int, typer.Option("--clusters", help="Clusters of patches, over all images")] = 6,
    patch: Annotated[
        str,
        typer.Option("--patch", metavar="ROW,COLUMN", help="Patch whose similarity is drawn, from 0 [default: middle]"),
    ] = "",
    map_: Annotated[
        str,
        typer.Option("--map", metavar="DATA", help="Config, folder or manifest: lay out its images by their features"),
    ] = "",
    limit: Annotated[int, typer.Option("--limit", help="Images to draw, evenly spread over those that are named")] = 12,
    hash_ids: Annotated[
        bool, typer.Option("--hash-ids", help="No names of files and classes: hashes in their place")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write into a folder that holds other things")] = False,
    json_: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress")] = False,
) -> None:
    """Draw what a model sees in images: attention, rollout, PCA, similarity and clusters of patches; PNGs and one page."""
    from dinomx_core.progress import counter
    from dinomx_interpret import api

    report = api.explain(
        source, images, out=out, size=as_size(size), block=block, channels=numbers(channels), clusters=clusters,
        patch=as_place(patch), map=map_, limit=limit, hash_ids=hash_ids, overwrite=overwrite,
        progress=None if quiet else counter("images"),
    )  # fmt: skip
    if json_:
        typer.echo(json.dumps(report, indent=1))
        return
    for warning in report["warnings"]:
        typer.echo(f"warning: {warning}", err=True)
    for note in report["notes"]:
        typer.echo(f"note         {note}")
    typer.echo(f"explained    {len(report['images'])} of {report['found']} images")
    typer.echo(f"open it      {report['page']}")


def as_size(text: str) -> int | tuple[int, int] | None:
    """ "224" -> 224, "224x320" -> (224, 320). Raises ConfigError for anything else."""
    try:
        sides = [int(part) for part in text.lower().split("x")] if text else []
    except ValueError:
        sides = [0, 0, 0]
    if len(sides) > 2:
        raise ConfigError(
            [Problem(f'expected pixels such as 224, or height x width such as 224x320, got "{text}"', "--size")]
        )
    return None if not sides else sides[0] if len(sides) == 1 else (sides[0], sides[1])


def as_place(text: str) -> tuple[int, int] | None:
    """ "3,7" -> (3, 7). Raises ConfigError for anything else."""
    try:
        place = [int(part) for part in text.split(",")] if text else []
    except ValueError:
        place = [0]
    if text and len(place) != 2:
        raise ConfigError([Problem(f'expected a row and a column such as 3,7, got "{text}"', "--patch")])
    return (place[0], place[1]) if place else None
