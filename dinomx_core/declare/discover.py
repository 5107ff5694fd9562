"""Entry points -> loaded plugins -> look-up by kind and name. A plugin that fails is named with its cause and stops nobody else."""

import contextlib
import difflib
import importlib
import inspect
import sys
from collections.abc import Iterable
from importlib import metadata
from types import ModuleType
from typing import Any

import attrs
import pluggy

from dinomx_core.declare import hooks
from dinomx_core.declare.catalogue import Available, catalogue
from dinomx_core.declare.components import KINDS, Declared
from dinomx_core.errors import PluginError

GROUP = "dinomx.plugins"
API_VERSION = 1


@attrs.frozen
class Plugin:
    """One entry point: where it comes from, what it declared, and why it is broken if it is."""

    name: str
    distribution: str
    version: str
    module: str
    components: tuple[Declared, ...] = ()
    error: str = ""


@attrs.frozen
class Registry:
    """Every component that can be picked, by kind and name, with the plugin that declares it."""

    plugins: tuple[Plugin, ...]
    available: tuple[Available, ...]

    def names(self, kind: str) -> list[str]:
        """Sorted names of the installed components of a kind."""
        return sorted({component.name for component in self.all(kind)})

    def all(self, kind: str) -> list[Any]:
        """The declarations of a kind."""
        return [c for plugin in self.plugins for c in plugin.components if c.kind == kind]

    def find(self, kind: str, name: str) -> Any:
        """The declaration of a component.

        Raises PluginError with the remedy when it is unknown, merely available, declared by a broken plugin, or claimed
        by two plugins.
        """
        owners = [(p, c) for p in self.plugins for c in p.components if c.kind == kind and c.name == name]
        if len(owners) == 1:
            return owners[0][1]
        if owners:
            who = " and ".join(f"{p.distribution} ({p.module})" for p, _ in owners)
            raise PluginError(f'{kind} "{name}" is declared by {who}; uninstall one of them')
        raise PluginError(self._missing(kind, name))

    def _missing(self, kind: str, name: str) -> str:
        for entry in self.available:
            if entry.kind == kind and entry.name == name:
                broken = next((p for p in self.plugins if p.error and p.distribution == entry.package), None)
                if broken:
                    return f'{kind} "{name}" belongs to {broken.distribution}, which is broken: {broken.error}'
                return f'{kind} "{name}" is not installed; install it with: pip install {entry.package}'
        known = self.names(kind)
        message = f'no {kind} is called "{name}"'
        if close := difflib.get_close_matches(name, known, n=1):
            return f'{message}; did you mean "{close[0]}"?'
        elsewhere = [k.kind for k in KINDS if name in self.names(k.kind)]  # type: ignore[attr-defined]
        if elsewhere:
            article = "an" if elsewhere[0][0] in "aeio" else "a"
            return f'{message}; "{name}" is {article} {elsewhere[0]}'
        message += f"; installed: {', '.join(known) or 'none'}"
        if broken_plugins := [p.distribution for p in self.plugins if p.error]:
            message += f"; broken plugins that may declare it: {', '.join(broken_plugins)} (see `dinomx plugins`)"
        return message


def discover(extra: Iterable[ModuleType] = ()) -> Registry:
    """Load every installed plugin, and `extra` modules as if they were installed; never raises for a bad plugin."""
    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks)
    plugins, seen = [], set()
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda e: (e.name != "builtin", e.name, e.value)):
        distribution, version = (entry.dist.name, entry.dist.version) if entry.dist else ("unknown", "unknown")
        if (entry.name, entry.value, distribution) in seen:
            continue
        seen.add((entry.name, entry.value, distribution))
        blank = Plugin(entry.name, distribution, version, entry.value)
        try:
            with contextlib.redirect_stdout(sys.stderr):  # what a plugin prints must not end up in `--json`
                module = importlib.import_module(entry.value)
        except (Exception, SystemExit) as error:
            plugins.append(attrs.evolve(blank, error=f"cannot import {entry.value}: {_cause(error)}"))
            continue
        plugins.append(_declare(manager, blank, module))
    for module in extra:
        name = module.__name__
        plugins.append(_declare(manager, Plugin(name.rpartition(".")[2], name, "unpackaged", name), module))
    return Registry(tuple(plugins), catalogue())


def _cause(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _declare(manager: pluggy.PluginManager, plugin: Plugin, module: ModuleType) -> Plugin:
    """Run each hook of one plugin alone and to its end; a plugin with any fault declares nothing."""
    wanted = getattr(module, "DINOMX_API", API_VERSION)
    if wanted != API_VERSION:
        newer = isinstance(wanted, int) and wanted > API_VERSION
        change = "upgrade dinomx" if newer else "upgrade the plugin"
        return attrs.evolve(plugin, error=f"made for plugin API {wanted!r}, this is {API_VERSION}; {change}")
    try:
        for name, value in vars(module).items():
            if callable(value) and hasattr(value, f"{hooks.PROJECT}_impl") and not hasattr(manager.hook, name):
                close = difflib.get_close_matches(name, hooks.HOOKS.values(), n=1)
                hint = f'; did you mean "{close[0]}"?' if close else ""
                return attrs.evolve(plugin, error=f'"{name}" is not a hook{hint}')
        manager.register(module, name=plugin.module)
    except Exception as error:
        return attrs.evolve(plugin, error=str(error).replace("\n", " "))
    components: list[Declared] = []
    for caller in manager.get_hookcallers(module) or []:
        implementation = next(i for i in caller.get_hookimpls() if i.plugin is module)
        try:
            for component in implementation.function():  # type: ignore[attr-defined]
                components.append(_checked(component, caller.name))
        except (Exception, SystemExit) as error:
            return attrs.evolve(plugin, error=f"{caller.name}() raised {_cause(error)}")
    if not components:
        return attrs.evolve(plugin, error=f"{plugin.module} declares nothing: no function is marked with @hookimpl")
    return attrs.evolve(plugin, components=tuple(components))


def _checked(component: Any, hook: str) -> Declared:
    kind = type(component)
    if kind not in KINDS or hooks.HOOKS[kind.kind] != hook:
        raise TypeError(f"it yielded {component!r}, which does not belong there")
    if not isinstance(component.name, str):
        raise TypeError(f"the name of {component!r} is not a text")
    options = getattr(component, "options", None)
    if options is not None and inspect.isclass(options) and attrs.has(options):
        attrs.resolve_types(options)
    elif options is not None:
        raise TypeError(f'the options of "{component.name}" are not an attrs class: {options!r}')
    return component
