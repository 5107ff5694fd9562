"""`registry.toml`: components that exist somewhere, and the package to install for each. It informs and never decides."""

import difflib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs
import tomli

from dinomx_core.declare.components import KINDS
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
KNOWN = [kind.kind for kind in KINDS]  # type: ignore[attr-defined]


def catalogue() -> tuple[tuple[Available, ...], tuple[str, ...]]:
    """The rows of `registry.toml` and of users' own registries, and what is wrong with these."""
    rows, faults = read(shipped("registry.toml")), []
    for name in filter(None, os.environ.get(MORE, "").split(os.pathsep)):
        try:
            rows += read(Path(name).expanduser())
        except (OSError, ValueError, RuntimeError) as error:  # the last: no such user's folder
            faults.append(f"{name} ({MORE}) is left out: {getattr(error, 'strerror', None) or error}")
    return tuple(dict.fromkeys(rows)), tuple(faults)


def read(file: Path) -> list[Available]:
    """The rows of a registry. Raises ValueError, or OSError."""
    table = tomli.loads(file.read_text("utf-8"))
    if unknown := set(table) - {"component"}:
        raise ValueError(f"unknown key {sorted(unknown)[0]}; a registry has tables [[component]]")
    rows = table.get("component", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("component is not an array of tables; write each as [[component]]")
    for number, row in enumerate(rows, 1):
        if fault := _fault_of(row):
            raise ValueError(f"component {number} needs the texts {', '.join(KEYS)}; {fault}")
        if row["kind"] not in KNOWN:
            close = difflib.get_close_matches(row["kind"], KNOWN, n=1)
            hint = f'; did you mean "{close[0]}"?' if close else f"; kinds: {', '.join(KNOWN)}"
            raise ValueError(f'component {number} is of an unknown kind "{row["kind"]}"{hint}')
    return [Available(**row) for row in rows]


def _fault_of(row: dict[str, Any]) -> str:
    """The first key that is wrong with a row. A summary may be empty: so are those of components that nobody has described."""
    for key in dict.fromkeys((*KEYS, *row)):
        if key not in row:
            return f"{key} is missing"
        if key not in KEYS:
            return f"{key} is none of them"
        if not isinstance(row[key], str):
            return f"{key} is not a text"
        if not row[key] and key != "summary":
            return f"{key} is empty"
    return ""


def written(rows: Iterable[Available]) -> str:
    """A registry's text, by package, kind and name."""
    tables = [
        "\n".join(["[[component]]", *(f"{key} = {json.dumps(getattr(row, key), ensure_ascii=False)}" for key in KEYS)])
        for row in sorted(set(rows))
    ]
    return "\n\n".join([HEAD.rstrip(), *tables]) + "\n"
