"""`registry.toml`: components that exist somewhere, and the package to install for each. It informs and never decides."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import attrs
import tomli

from dinomx_core.shipped import shipped

MORE = "DINOMX_REGISTRY"  # environment variable: further files, between them what is between folders of PATH
HEAD = "# Components and the package to install for each. This file informs; what is installed decides.\n"


@attrs.frozen(order=True)
class Available:
    """A catalogue row."""

    package: str
    kind: str
    name: str
    summary: str


KEYS = ("kind", "name", "package", "summary")


def catalogue() -> tuple[tuple[Available, ...], tuple[str, ...]]:
    """The rows of `registry.toml` and of users' own registries, and what is wrong with these."""
    rows, faults = read(shipped("registry.toml")), []
    for name in filter(None, os.environ.get(MORE, "").split(os.pathsep)):
        try:
            rows += read(Path(name).expanduser())
        except (OSError, ValueError) as error:
            faults.append(f"{name} ({MORE}) is left out: {getattr(error, 'strerror', None) or error}")
    return tuple(dict.fromkeys(rows)), tuple(faults)


def read(file: Path) -> list[Available]:
    """The rows of a registry. Raises ValueError, or OSError."""
    table = tomli.loads(file.read_text("utf-8"))
    if unknown := set(table) - {"component"}:
        raise ValueError(f"unknown key {sorted(unknown)[0]}; a registry has tables [[component]]")
    found = []
    for number, row in enumerate(table.get("component", []), 1):
        if set(row) != set(KEYS) or not all(isinstance(value, str) and value for value in row.values()):
            raise ValueError(
                f"component {number} needs the texts {', '.join(KEYS)}, and has {', '.join(row) or 'none'}"
            )
        found.append(Available(**row))
    return found


def written(rows: Iterable[Available]) -> str:
    """A registry's text, by package, kind and name."""
    tables = [
        "\n".join(["[[component]]", *(f"{key} = {json.dumps(getattr(row, key), ensure_ascii=False)}" for key in KEYS)])
        for row in sorted(set(rows))
    ]
    return "\n\n".join([HEAD.rstrip(), *tables]) + "\n"
