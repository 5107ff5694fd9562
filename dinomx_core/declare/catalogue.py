"""`registry.toml`: components that exist somewhere, and the package to install for each. It informs and never decides."""

import attrs
import tomli

from dinomx_core.shipped import shipped


@attrs.frozen
class Available:
    """A catalogue row."""

    kind: str
    name: str
    package: str
    summary: str


def catalogue() -> tuple[Available, ...]:
    """The rows of `registry.toml`."""
    rows = tomli.loads(shipped("registry.toml").read_text("utf-8")).get("component", [])
    return tuple(Available(row["kind"], row["name"], row["package"], row["summary"]) for row in rows)
