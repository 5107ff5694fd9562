"""Commands that plugins add to `dinomx`: found by their declarations, imported when they are called."""

import functools
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from dinomx_core.declare.commands import Command
from dinomx_core.declare.discover import Registry, discover
from dinomx_core.declare.faults import cause, faulty, shown
from dinomx_core.errors import DinomxError

KIND = "command"


class Commands(TyperGroup):
    """The commands of `dinomx` itself, which need no plugin to be looked for, then those of plugins."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names, for `--help`."""
        return [*super().list_commands(ctx), *discover().names(KIND)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command by its name; None where nobody has heard of it."""
        if (own := super().get_command(ctx, cmd_name)) is not None:
            return own
        registry = discover()
        known = (*registry.all(KIND), *(entry for entry in registry.available if entry.kind == KIND))
        for declared in known:
            if declared.name == cmd_name:
                return Later(registry, cmd_name, declared.summary)
        return None


class Later(TyperCommand):
    """A plugin's command before it is called: a name and a summary."""

    def __init__(self, registry: Registry, name: str, summary: str):
        super().__init__(name, help=summary, rich_markup_mode=None)
        self.registry = registry

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the command itself, which is imported here. Raises PluginError where it is not installed, broken, or claimed by
        two plugins."""
        from dinomx_core.training.construct import attribute

        declared = self.registry.find(KIND, str(self.name))
        function = attribute(declared)
        if not callable(function):
            raise faulty(declared, f"{declared.build} is no function: {shown(function)}")
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command(self.name)(named(function, declared))
        try:
            command = typer.main.get_command(alone)
        except Exception as error:
            raise faulty(declared, f"{declared.build} is no command: {cause(error)}") from error
        return command.make_context(info_name, args, parent, **extra)


def named(function: Callable[..., Any], declared: Command) -> Callable[..., Any]:
    """A command's function, whose faults keep their traceback and say whose they are."""

    @functools.wraps(function)
    def called(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except DinomxError:
            raise
        except Exception as error:
            error.add_note(f'in the command "{declared.name}" of {declared.package or declared.build}')
            raise

    return called
