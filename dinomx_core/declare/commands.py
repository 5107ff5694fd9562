"""Commands that plugins declare, and the names that are not theirs to take."""

from typing import Any, ClassVar

import attrs

# Commands of `dinomx` itself, which are there before any plugin is looked for.
OWN_COMMANDS = (
    "compare",
    "convert",
    "data",
    "doctor",
    "embed",
    "eval",
    "export",
    "init",
    "plan",
    "plugin",
    "plugins",
    "run",
    "sweep",
)


def not_our_own(instance: Any, attribute: Any, value: str) -> None:
    """attrs validator: the name of no command that `dinomx` has itself."""
    if value in OWN_COMMANDS:
        raise ValueError(f'"dinomx {value}" is a command of dinomx itself; give yours another name')


@attrs.frozen
class Command:
    """A command, `dinomx NAME`. `build` is "module:function", imported only when it is called: a function whose parameters are annotated as
    typer has them, and whose docstring is its help; `summary` is the line of it in `dinomx --help`."""

    kind: ClassVar[str] = "command"
    name: str = attrs.field(validator=not_our_own)
    build: str
    summary: str
    package: str = attrs.field(default="", kw_only=True, repr=False)
