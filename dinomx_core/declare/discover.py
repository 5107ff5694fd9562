"""Entry points -> loaded plugins -> look-up by kind and name. A plugin that fails is named with its cause and stops nobody else."""

import contextlib
import difflib
import importlib
import inspect
import re
import sys
import time
import warnings
from collections.abc import Iterable
from importlib import metadata
from types import ModuleType
from typing import Any

import attrs
import pluggy

from dinomx_core.declare import hooks
from dinomx_core.declare.catalogue import Available, catalogue
from dinomx_core.declare.components import KINDS, Declared, Recipe
from dinomx_core.declare.faults import authors, cause, guarded, not_imported
from dinomx_core.errors import DinomxDeprecation, PluginError

GROUP = "dinomx.plugins"
API_VERSION = 1  # of hooks, declarations and contracts; a plugin says by `DINOMX_API = 1` which it is made for, the first where it does not
UNPACKAGED = "unpackaged"  # the version of a module that was handed over, and not installed
OWN = "dinomx"  # the core's distribution, whose names nobody else may take
HEAVY = ("torch", "transformers", "monai", "sklearn")  # which no declaration may import
SLOW = "every command waits for that; its author can import it where the built part is"
BUILD = re.compile(r"\w+(\.\w+)*:\w+")
FILE = re.compile(r"\w+(\.\w+)*:[^:]+")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
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


class _Faulty(Exception):
    """What is wrong with a plugin, and the remedy where it is another one than its author's."""

    def __init__(self, cause: str, remedy: str = ""):
        self.cause, self.remedy = cause, remedy


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
        before, path, started = set(sys.modules), list(sys.path), time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", DinomxDeprecation)
            try:
                with contextlib.redirect_stdout(sys.stderr):  # what a plugin prints must not end up in `--json`
                    module = importlib.import_module(plugin.module)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                reason = not_imported(plugin.module, plugin.distribution, error)
                self.plugins.append(attrs.evolve(plugin, error=reason))
                return
            finally:
                sys.path += [entry for entry in path if entry not in sys.path]  # which others are found by
            heavy = [name for name in HEAVY if name in sys.modules and name not in before]
            self.add(plugin, module)
        old = [str(warning.message) for warning in caught if issubclass(warning.category, DinomxDeprecation)]
        notes = (*(f"its declarations import {name}: {SLOW}" for name in heavy), *dict.fromkeys(old))
        self.plugins[-1] = attrs.evolve(self.plugins[-1], notes=notes, seconds=time.perf_counter() - started)

    def add(self, plugin: Plugin, module: ModuleType) -> None:
        """Take up what a plugin declares; one with any fault declares nothing."""
        try:
            try:
                self.check_module(module, plugin)
            except _Faulty:
                raise
            except Exception as error:  # of odd objects in it, asked what they are
                raise _Faulty(f"its module cannot be looked at: {cause(error)}") from None
            components = self.declared(plugin, module)
        except _Faulty as fault:
            remedy = fault.remedy or ("mend it" if plugin.version == UNPACKAGED else authors(plugin.distribution))
            self.plugins.append(attrs.evolve(plugin, error=f"{fault.cause}; {remedy}"))
            return
        self.plugins.append(attrs.evolve(plugin, components=tuple(components)))

    def check_module(self, module: ModuleType, plugin: Plugin) -> None:
        """Raise _Faulty for a plugin made for another version of the core, or whose hooks are none."""
        wanted = getattr(module, "DINOMX_API", 1)
        if type(wanted) is not int or wanted != API_VERSION:
            newer = isinstance(wanted, int) and wanted > API_VERSION
            raise _Faulty(
                f"it is made for version {wanted!r} of the plugin API, and this is {API_VERSION}",
                f"pip install --upgrade {OWN if newer else plugin.distribution}",
            )
        if other := next((p for p in self.plugins if p.module == plugin.module), None):
            raise _Faulty(
                f"its module {plugin.module} is that of {other.distribution}, too",
                f"uninstall one of them: pip uninstall {plugin.distribution}",
            )
        for name, value in vars(module).items():
            if not inspect.isroutine(value) or not hasattr(value, f"{hooks.PROJECT}_impl"):
                continue
            if not hasattr(self.manager.hook, name):
                words = [hook.removeprefix("dinomx_") for hook in hooks.HOOKS.values()]
                close = difflib.get_close_matches(name.removeprefix("dinomx_"), words, n=1)
                hint = f' (did you mean "dinomx_{close[0]}"?)' if close else ""
                raise _Faulty(f'"{name}" is not a hook{hint}')
            if parameters := list(inspect.signature(value).parameters):
                raise _Faulty(f"{name}() takes arguments ({', '.join(parameters)}), and hooks have none")

    def declared(self, plugin: Plugin, module: ModuleType) -> list[Declared]:
        """What the hooks of one plugin yield, each run alone and to its end. Raises _Faulty."""
        self.manager.register(module, name=plugin.module)
        components: list[Declared] = []
        for caller in self.manager.get_hookcallers(module) or []:
            implementation = next(i for i in caller.get_hookimpls() if i.plugin is module)
            try:
                for component in implementation.function():  # type: ignore[attr-defined]
                    components.append(self.checked(component, caller.name, plugin, components))
                    if len(components) > MOST:
                        raise _Faulty(f"it does not stop: more than {MOST} declarations")
            except _Faulty as fault:
                raise _Faulty(f"{caller.name}(): {fault.cause}") from None
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                raise _Faulty(f"{caller.name}() raised {cause(error)}") from None
        if not components:
            marked = bool(self.manager.get_hookcallers(module))
            why = "its hooks yield nothing" if marked else "no function of its module is marked with @hookimpl"
            raise _Faulty(f"it declares nothing: {why}")
        return components

    def checked(self, component: Any, hook: str, plugin: Plugin, others: list[Declared]) -> Declared:
        """A declaration that belongs into a hook. Raises _Faulty."""
        kind = type(component)
        if kind not in KINDS or hooks.HOOKS[kind.kind] != hook:
            raise _Faulty(f"it yielded {component!r}, which does not belong there")
        if not isinstance(component.name, str) or not NAME.fullmatch(component.name):
            raise _Faulty(
                f"the name {component.name!r} of a {kind.kind} is not one of letters, digits, '-', '_' and '.'"
            )
        what = f'{kind.kind} "{component.name}"'
        if any((c.kind, c.name) == (component.kind, component.name) for c in others):
            raise _Faulty(f"it yielded the {what} twice")
        own = next((p for p in self.plugins if p.distribution == OWN), None)
        if own and any((c.kind, c.name) == (component.kind, component.name) for c in own.components):
            raise _Faulty(f"the {what} is one of the core's, whose names nobody else may take")
        if (build := getattr(component, "build", None)) is not None and not (
            isinstance(build, str) and BUILD.fullmatch(build)
        ):
            raise _Faulty(f'the build path of the {what} is not "module:attribute": {build!r}')
        if isinstance(component, Recipe) and not (isinstance(component.path, str) and FILE.fullmatch(component.path)):
            raise _Faulty(f'the path of the {what} is not "package:file": {component.path!r}')
        for field in attrs.fields(kind):
            value = getattr(component, field.name)
            if value is not field.default and "Callable[" in str(field.type) and not callable(value):
                raise _Faulty(f"the {field.name} of the {what} is not a function: {value!r}")
        options = getattr(component, "options", None)
        if options is not None and inspect.isclass(options) and attrs.has(options):
            attrs.resolve_types(options)
        elif options is not None:
            raise _Faulty(f"the options of the {what} are not an attrs class: {options!r}")
        return (
            component
            if plugin.distribution == OWN or plugin.version == UNPACKAGED
            else guarded(component, plugin.distribution)
        )
