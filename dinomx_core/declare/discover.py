"""Entry points -> loaded plugins -> look-up by kind and name. A plugin that fails is named with its cause and stops nobody else."""

import contextlib
import difflib
import importlib
import os
import re
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from importlib import metadata
from types import ModuleType
from typing import Any

import attrs
import pluggy

from dinomx_core.declare import hooks
from dinomx_core.declare.catalogue import Available, catalogue
from dinomx_core.declare.components import KINDS, Declared
from dinomx_core.declare.faults import authors, cause, guarded, not_imported, text_of
from dinomx_core.declare.sound import Faulty, check_declaration, check_hooks
from dinomx_core.errors import DinomxDeprecation, PluginError

GROUP = "dinomx.plugins"
API_VERSION = 1  # of hooks, declarations and contracts; a plugin says by `DINOMX_API = 1` which it is made for, the first where it does not
UNPACKAGED = "unpackaged"  # the version of a module that was handed over, and not installed
OWN = "dinomx"  # the core's distribution, whose names nobody else may take
HEAVY = ("torch", "transformers", "monai", "sklearn")  # which no declaration may import
SLOW = "every command waits for that; its author can import it where the built part is"
MODULE = re.compile(r"[\w-]+(\.[\w-]+)*")
MOST = 1000  # declarations of one hook: a generator may have no end


@attrs.frozen
class Plugin:
    """One entry point: where it comes from, what it declared, why it is broken if it is, and what is not well with it."""

    name: str
    distribution: str
    version: str
    module: str
    components: tuple[Declared, ...] = ()
    error: str = ""
    notes: tuple[str, ...] = ()
    seconds: float = attrs.field(default=0.0, eq=False, repr=False)  # that finding out took


@attrs.frozen
class Registry:
    """Every component that can be picked, by kind and name, with the plugin that declares it."""

    plugins: tuple[Plugin, ...]
    available: tuple[Available, ...]
    faults: tuple[str, ...] = ()  # of registries that could not be read

    def names(self, kind: str) -> list[str]:
        """Sorted names of the installed components of a kind."""
        return sorted({component.name for component in self.all(kind)})

    def all(self, kind: str) -> list[Any]:
        """The declarations of a kind."""
        return [c for plugin in self.plugins for c in plugin.components if c.kind == kind]

    def having(self, kind: str, key: str) -> list[str]:
        """Sorted names of the installed components of a kind that have an option."""
        return sorted(
            {
                component.name
                for component in self.all(kind)
                if component.options is not None and key in attrs.fields_dict(component.options)
            }
        )

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
            raise PluginError(
                f'{kind} "{name}" is declared by {who}; uninstall one of them: pip uninstall {owners[-1][0].distribution}'
            )
        raise PluginError(self._missing(kind, name))

    def _missing(self, kind: str, name: str) -> str:
        for entry in self.available:
            if entry.kind == kind and entry.name == name:
                broken = next((p for p in self.plugins if p.error and p.distribution == entry.package), None)
                if broken:
                    return f'{kind} "{name}" belongs to {broken.distribution}, which is broken: {broken.error}'
                return f'{kind} "{name}" is not installed; install it with: pip install {entry.package}'
        return f'no {kind} is called "{name}"; {"; ".join(filter(None, (self._hint(kind, name), self._broken(name))))}'

    def _hint(self, kind: str, name: str) -> str:
        known = self.names(kind)
        if close := difflib.get_close_matches(name, known, n=1):
            return f'did you mean "{close[0]}"?'
        elsewhere = [k.kind for k in KINDS if name in self.names(k.kind)]  # type: ignore[attr-defined]
        if elsewhere:
            article = "an" if elsewhere[0][0] in "aeio" else "a"
            return f'"{name}" is {article} {elsewhere[0]}'
        return f"installed: {', '.join(known) or 'none'}"

    def _broken(self, name: str) -> str:
        broken = [p.distribution for p in self.plugins if p.error]
        broken.sort(key=lambda distribution: distribution != f"dinomx-{name}")  # the likeliest first
        return f"broken plugins that may declare it: {', '.join(broken)} (see `dinomx plugins`)" if broken else ""


def discover(extra: Iterable[ModuleType] = ()) -> Registry:
    """Load every installed plugin, and `extra` modules as if they were installed; never raises for a bad plugin."""
    found = _Found()
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda e: (e.name != "builtin", e.name, e.value)):
        distribution, version = (entry.dist.name, entry.dist.version) if entry.dist else (None, None)
        blank = Plugin(entry.name, distribution or "unknown", version or "unknown", entry.value)
        if any((p.distribution, p.module) == (blank.distribution, entry.value) for p in found.plugins):
            continue  # the same distribution, found in two folders
        found.load(blank)
    for module in extra:
        name = module.__name__
        found.add(Plugin(name.rpartition(".")[2], name, UNPACKAGED, name), module)
    available, faults = catalogue()
    return Registry(tuple(found.plugins), available, faults)


class _Found:
    def __init__(self) -> None:
        self.manager = pluggy.PluginManager(hooks.PROJECT)
        self.manager.add_hookspecs(hooks)
        self.plugins: list[Plugin] = []

    def load(self, plugin: Plugin) -> None:
        """Import a plugin's module, and take up what it declares."""
        if not MODULE.fullmatch(plugin.module):
            fault = f'its entry point "{plugin.module}" is not the name of a module'
            self.plugins.append(attrs.evolve(plugin, error=f"{fault}; {authors(plugin.distribution)}"))
            return
        before, moved, started = set(sys.modules), list[str](), time.process_time()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", DinomxDeprecation)
            try:
                # what a plugin prints must not end up in `--json`
                with undisturbed(moved), contextlib.redirect_stdout(sys.stderr):
                    module = importlib.import_module(plugin.module)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                reason = not_imported(plugin.module, plugin.distribution, error)
                self.plugins.append(attrs.evolve(plugin, error=reason))
                return
            heavy = [name for name in HEAVY if name in sys.modules and name not in before]
            with undisturbed(moved):
                self.add(plugin, module)
        old = [text_of(w.message) for w in caught if issubclass(w.category, DinomxDeprecation)]
        notes = (*(f"its declarations import {name}: {SLOW}" for name in heavy), *dict.fromkeys((*moved, *old)))
        self.plugins[-1] = attrs.evolve(self.plugins[-1], notes=notes, seconds=time.process_time() - started)

    def add(self, plugin: Plugin, module: ModuleType) -> None:
        """Take up what a plugin declares; one with any fault declares nothing."""
        try:
            try:
                self.check_module(module, plugin)
                self.manager.register(module, name=plugin.module)
            except (Faulty, KeyboardInterrupt):
                raise
            except BaseException as error:  # of odd objects in it, asked what they are
                raise Faulty(f"its module cannot be looked at: {cause(error)}") from None
            components = self.declared(plugin, module)
        except Faulty as fault:
            remedy = fault.remedy or ("mend it" if plugin.version == UNPACKAGED else authors(plugin.distribution))
            self.plugins.append(attrs.evolve(plugin, error=f"{fault.cause}; {remedy}"))
            return
        self.plugins.append(attrs.evolve(plugin, components=tuple(components)))

    def check_module(self, module: ModuleType, plugin: Plugin) -> None:
        """Raise Faulty for a plugin made for another version of the core, one whose module is another's, or whose hooks are none."""
        wanted = getattr(module, "DINOMX_API", 1)
        if type(wanted) is not int or wanted != API_VERSION:
            newer = isinstance(wanted, int) and wanted > API_VERSION
            raise Faulty(
                f"it is made for version {wanted!r} of the plugin API, and this is {API_VERSION}",
                f"pip install --upgrade {OWN if newer else plugin.distribution}",
            )
        if other := next((p for p in self.plugins if p.module == plugin.module), None):
            raise Faulty(
                f"its module {plugin.module} is that of {other.distribution}, too",
                f"uninstall one of them: pip uninstall {plugin.distribution}",
            )
        check_hooks(module)

    def declared(self, plugin: Plugin, module: ModuleType) -> list[Declared]:
        """What the hooks of one plugin yield, each run alone and to its end. Raises Faulty."""
        components: list[Declared] = []
        for caller in self.manager.get_hookcallers(module) or []:
            implementation = next(i for i in caller.get_hookimpls() if i.plugin is module)
            try:
                for component in implementation.function():  # type: ignore[attr-defined]
                    components.append(self.checked(component, caller.name, plugin, components))
                    if len(components) > MOST:
                        raise Faulty(f"it does not stop: more than {MOST} declarations")
            except Faulty as fault:
                raise Faulty(f"{caller.name}(): {fault.cause}") from None
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                raise Faulty(f"{caller.name}() raised {cause(error)}") from None
        if not components:
            marked = bool(self.manager.get_hookcallers(module))
            why = "its hooks yield nothing" if marked else "no function of its module is marked with @hookimpl"
            raise Faulty(f"it declares nothing: {why}")
        return components

    def checked(self, component: Any, hook: str, plugin: Plugin, others: list[Declared]) -> Declared:
        """A declaration that belongs into a hook, and is nobody's yet. Raises Faulty."""
        check_declaration(component, hook)
        what = f'{component.kind} "{component.name}"'
        if any((c.kind, c.name) == (component.kind, component.name) for c in others):
            raise Faulty(f"it yielded the {what} twice")
        own = next((p for p in self.plugins if p.distribution == OWN), None)
        if own and any((c.kind, c.name) == (component.kind, component.name) for c in own.components):
            raise Faulty(f"the {what} is one of the core's, whose names nobody else may take")
        if plugin.distribution == OWN or plugin.version == UNPACKAGED:
            return component
        return guarded(component, plugin.distribution)


@contextlib.contextmanager
def undisturbed(told: list[str]) -> Iterator[None]:
    """What finds modules stays findable, and the working directory, which paths of configs are relative to, stays the same; a change
    of that is told."""
    path, here = list(sys.path), working_directory()
    try:
        yield
    finally:
        sys.path += [entry for entry in path if entry not in sys.path]
        if here and working_directory() != here:
            told.append(
                "its declarations change the working directory, which was changed back; its author can leave that out"
            )
            with contextlib.suppress(OSError):
                os.chdir(here)


def working_directory() -> str:
    """The working directory; "" where it is gone."""
    try:
        return os.getcwd()
    except OSError:
        return ""
