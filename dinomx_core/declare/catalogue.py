"""`registry.toml`: components that exist somewhere, and the package to install for each. It informs and never decides."""

from importlib import resources
from pathlib import Path

import attrs
import tomli


@attrs.frozen
class Available:
    """A catalogue row."""

    kind: str
    name: str
    package: str
    summary: str


def catalogue() -> tuple[Available, ...]:
    """The rows of the shipped `registry.toml` (beside the package in a wheel, at the top of a checkout)."""
    inside = resources.files("dinomx_core") / "registry.toml"
    file = inside if inside.is_file() else Path(__file__).parents[2] / "registry.toml"
    rows = tomli.loads(file.read_text("utf-8")).get("component", [])
    return tuple(Available(row["kind"], row["name"], row["package"], row["summary"]) for row in rows)
