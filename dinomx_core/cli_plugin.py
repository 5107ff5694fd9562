"""`dinomx plugin`: commands for those who write plugins."""

import contextlib
import json
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import attrs
import typer

from dinomx_core.arguments import AsJson

if TYPE_CHECKING:
    from dinomx_core.testing.findings import Finding

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
    for command in (f"cd {shlex.quote(str(folder))}", 'pip install -e ".[dev]"', "dinomx run example.toml", "pytest"):
        typer.echo(f"next         {command}")


@plugin.command()
def check(
    package: Annotated[
        str, typer.Argument(help="Plugin, package, its folder, or a module of declarations [default: all installed]")
    ] = "",
    fast: Annotated[bool, typer.Option("--fast", help="Leave out checks of more than a few seconds")] = False,
    json_: AsJson = False,
) -> None:
    """Check plugins against the contracts: each check of each component, with what is wrong and how to mend it.

    Ends with 1 where a check failed. docs/checking-a-plugin.md says what each check proves.
    """
    from dinomx_core.testing.conform import findings
    from dinomx_core.testing.subject import find, installed

    found: list[dict[str, str]] = []
    for subject in [find(package)] if package else installed():
        if json_:
            with contextlib.redirect_stdout(sys.stderr):  # what plugins print is no JSON
                told = list(findings(subject, fast))
        else:
            typer.echo(f"{subject.plugin.name}  ({subject.plugin.distribution} {subject.plugin.version})")
            told = list(said(findings(subject, fast)))
        found += ({"plugin": subject.plugin.name, **attrs.asdict(finding)} for finding in told)
    counts = Counter(finding["state"] for finding in found)
    if json_:
        typer.echo(json.dumps(found, indent=1))
    else:
        typer.echo(", ".join(f"{counts[state]} {state}" for state in ("ok", "failed", "skipped")))
    if counts["failed"]:
        raise typer.Exit(1)


def said(some: Iterable["Finding"]) -> Iterator["Finding"]:
    """Print findings as they come, each fault once."""
    seen: set[str] = set()
    for finding in some:
        again = finding.message in seen
        typer.echo(attrs.evolve(finding, message="as above", contract="", remedy="") if again else finding)
        seen |= {finding.message} - {""}
        yield finding
