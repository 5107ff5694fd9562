"""`dinomx doctor`."""

import json

import attrs
import typer

from dinomx_core.arguments import AsJson


def doctor(json_: AsJson = False) -> None:
    """Examine this machine: versions, GPU, bf16, cores, what is missing or slow. Exits with 1 where something will fail."""
    from dinomx_core.doctor import examine

    found = []
    for finding in examine():
        found.append(finding)
        if not json_:
            typer.echo(str(finding))
    if json_:
        typer.echo(json.dumps([attrs.asdict(finding) for finding in found], indent=1))
    if any(finding.level == "bad" for finding in found):
        raise typer.Exit(1)
