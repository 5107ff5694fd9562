"""Commands that plugins add to `dinomx`: found by their declarations, imported when they are called."""

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from dinomx_core.declare.discover import Registry, discover

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

        function = attribute(self.registry.find(KIND, str(self.name)))
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command(self.name)(function)
        return typer.main.get_command(alone).make_context(info_name, args, parent, **extra)
