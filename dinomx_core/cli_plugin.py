"""`dinomx plugin`: commands for those who write plugins."""

from pathlib import Path
from typing import Annotated

import typer

plugin = typer.Typer(
    help="Write a plugin, and check one against the contracts.", no_args_is_help=True, rich_markup_mode=None
)


@plugin.callback()
def about() -> None:
    """Write a plugin, and check one against the contracts."""


@plugin.command()
def new(
    name: Annotated[str, typer.Argument(help="Of the plugin and its component, such as soft-crop", show_default=False)],
    kind: Annotated[
        str, typer.Option("--kind", help="loss, backbone, augmentation, strategy, dataset, evaluator or recipe")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder that the package's own folder is made in")] = Path("."),
) -> None:
    """Write a package with a plugin that installs, trains its example and passes its tests: a place to begin."""
    from dinomx_core.scaffold import new_plugin

    folder = new_plugin(name, kind, out)
    typer.echo(f"wrote        {folder}")
    for command in (f"cd {folder}", 'pip install -e ".[dev]"', "dinomx run example.toml", "pytest"):
        typer.echo(f"next         {command}")
