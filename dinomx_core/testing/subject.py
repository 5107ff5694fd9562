"""What is checked: a plugin, and each component with the options that it is built by. Imports no torch."""

import contextlib
import importlib
import inspect
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import cattrs
import tomli

from dinomx_core.api import plan
from dinomx_core.declare.components import Component
from dinomx_core.declare.discover import MODULE, Plugin, discover
from dinomx_core.declare.values import REQUIRED, Chosen
from dinomx_core.errors import ConfigError, DataError, PluginError, Problem
from dinomx_core.planning import document
from dinomx_core.planning.convert import choose, make_converter, problems_of
from dinomx_core.planning.misread import AtKey
from dinomx_core.planning.reader import to_spec
from dinomx_core.planning.spec import LABELLED, SLOTS, RunSpec
from dinomx_core.planning.walk import as_table, chosen_parts, tables
from dinomx_core.testing import toy
from dinomx_core.testing.findings import PLUGIN, Skip

EXAMPLES, README = ("example.toml", "examples/quickstart.toml"), "README.md"
Options = Mapping[str, dict[str, Any]] | Callable[[], Mapping[str, dict[str, Any]]]
RUN = (
    "loss",
    "strategy",
    "evaluator",
    "augmentation",
    "placement",
    "masking",
    "intensity",
)  # kinds that are checked in a run
UNPACKAGED = "unpackaged"  # the version of a module of declarations that nobody has installed
USERS = ("weights", "teacher", "path", "start")  # options that name files of the user's
SIZES = (252, 240, 224)  # of images in pixels, which patches of most sizes fit into
SHORT: dict[str, Any] = {
    "run": {"steps": 3, "batch_size": 8, "device": "cpu", "threads": 1, "precision": "float32"},
    "loader": {"workers": 0},
    "report": {"enabled": False},
    "parallelism": None,
    "evaluate": None,
    "tracker": None,
    "checkpoint": None,
}


class Subject:
    """A plugin. options: tables for components that have options without a default, by "kind name", beside those of its example; or
    what gives them."""

    kind = PLUGIN

    def __init__(self, plugin: Plugin, options: Options):
        self.given = options
        self.modules: list[ModuleType] = [toy]  # to be used beside what is installed
        if plugin.version == UNPACKAGED:
            self.modules.append(importlib.import_module(plugin.module))
        self.registry = discover(self.modules)
        self.plugin = next(p for p in self.registry.plugins if p.module == plugin.module)
        self.kept: dict[Any, Any] = {}
        self._place = tempfile.TemporaryDirectory(prefix="dinomx-check-", ignore_cleanup_errors=True)

    def __str__(self) -> str:
        return PLUGIN

    @property
    def place(self) -> Path:
        """A folder for runs, gone with the subject."""
        return Path(self._place.name)

    @cached_property
    def options(self) -> Mapping[str, dict[str, Any]]:
        """Tables for components, by "kind name"."""
        return self.given() if callable(self.given) else self.given

    @cached_property
    def parts(self) -> list["Part"]:
        """Its components."""
        return [Part(self, component) for component in self.plugin.components]

    @cached_property
    def folder(self) -> Path | None:
        """The package's own folder, where it is installed in place; None in a wheel."""
        source = inspect.getsourcefile(importlib.import_module(self.plugin.module))
        if source is None:
            return None
        above = Path(source).resolve().parents[self.plugin.module.count(".") :]
        places = above[: 1 + (above[0].name == "src")]
        return next((place for place in places if project_of(place) == self.plugin.distribution), None)

    def file(self, *names: str) -> Path:
        """The first of the files that is in that folder, or the first name. Skips where there is no folder."""
        if self.folder is None:
            raise Skip(f"{self.plugin.distribution} is not installed in place, so its {names[0]} is not to be found")
        there = [self.folder / name for name in names if (self.folder / name).is_file()]
        return there[0] if there else self.folder / names[0]

    @cached_property
    def example(self) -> tuple[dict[str, Any], RunSpec] | None:
        """The tables of its example, merged with the recipe's, and what is picked there; None where there is none, or it cannot be read."""
        try:
            parsed = document.parse(document.read_text(self.file(*EXAMPLES)), EXAMPLES[0])
            stage = next(iter(document.load(parsed, self.registry, []).values()))
            return stage.data, to_spec(stage, self.registry)
        except (ConfigError, Skip):
            return None

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` gives, made once for all checks."""
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]


class Part:
    """A component of a plugin."""

    def __init__(self, subject: Subject, component: Any):
        self.subject, self.component = subject, component
        self.kind: str = component.kind

    def __str__(self) -> str:
        return f"{self.kind} {self.component.name}"

    @cached_property
    def table(self) -> dict[str, Any] | None:
        """Its options as given for the checks; None where they are not."""
        return self.subject.options.get(str(self))

    @cached_property
    def picked(self) -> tuple[tuple[str, ...], Chosen] | None:
        """Where example.toml picks it, and with which options; None where it does not."""
        if self.table is not None or self.subject.example is None:
            return None
        for path, chosen in chosen_parts(tables(self.subject.example[1])):
            if (chosen.component.kind, chosen.component.name) == (self.kind, self.component.name):
                return path, chosen
        return None

    @property
    def label(self) -> str:
        """What the config of its run calls it."""
        return self.picked[0][1] if self.picked else self.component.name

    @cached_property
    def chosen(self) -> Chosen:
        """The component with its options: those given, those of example.toml, or the defaults. Skips where none of them will do."""
        if self.picked:
            return self.picked[1]
        registry = self.subject.registry
        table = {"name": self.component.name, **filled(self.component.options), **(self.table or {})}
        try:
            return choose(make_converter(registry), registry, self.kind, table, self.component.name, None)
        except (cattrs.BaseValidationError, AtKey, ValueError) as error:
            found = problems_of(error, (), document.Document({}, {}))
            why = "; ".join(map(str, found))
            raise Skip(f"has options without a default, which {EXAMPLES[0]} does not give: {why}") from None

    @cached_property
    def lacking(self) -> str:
        """Why nothing can be built of it by what is known here; "" where something can."""
        if not isinstance(self.component, Component):
            return ""
        try:
            options = self.chosen.options
            if not self.picked and self.kind == "dataset":
                self.component.inspect(options)  # type: ignore[attr-defined]
            if not self.picked and self.kind == "backbone":
                patch_size(self.component, options)
            if self.kind in RUN:
                plan(self.config(), plugins=self.subject.modules, out=self.subject.place)
        except Skip as reason:
            return str(reason)
        except ConfigError as error:
            return f"no short run can be made of it{'' if self.picked else f', and {EXAMPLES[0]} does not pick it'}: {error}"
        except (DataError, OSError) as error:
            return f"nothing can be built of its defaults, and {EXAMPLES[0]} does not pick it: {error}"
        except Exception:  # whatever it is, its checks will meet and tell it
            return ""
        return ""

    def config(self, *changes: Mapping[str, Any]) -> dict[str, Any]:
        """A short run with the component: example.toml where that picks it, else the smallest run that there is with it put in."""
        if self.picked and self.subject.example:
            base = toy.changed(self.subject.example[0], SHORT)
            if self.kind == "evaluator":
                base["evaluate"] = {self.label: self.subject.example[0]["evaluate"][self.label]}
            return toy.changed(base, *changes)
        return toy.changed(toy.CONFIG, *self.placed(), *changes)

    def placed(self) -> list[dict[str, Any]]:
        """The changes that put it into the toy's config."""
        table, name = as_table(self.chosen), self.component.name
        if self.kind == "placement":
            return [{"augmentation": {"where": table}}]
        if self.kind == "strategy" and name != SLOTS["teacher"][1]:
            return [{"strategies": [name], "strategy": {name: table}}]
        for key, (kind, _) in SLOTS.items():
            if kind == self.kind:
                return [{key: None}, {key: table}, *self.beside()]
        for key, (kind, _) in LABELLED.items():
            if kind == self.kind:
                return [{key: None}, {key: {name: table}}]
        raise Skip(f"no config picks a {self.kind} by itself")

    def beside(self) -> list[dict[str, Any]]:
        """What the toy loss has to know of a component that stands beside it."""
        if self.kind == "masking":
            return [{"loss": {toy.NEIGHBOURS: {"view": self.component.view(self.chosen.options), "masked": True}}}]
        if self.kind == "augmentation":
            view = next(iter(self.component.views(self.chosen.options)))
            channels = len(self.component.preprocessing(self.chosen.options).mean)
            found: list[dict[str, Any]] = [{"loss": {toy.NEIGHBOURS: {"view": view.name}}}]
            if channels > 1:
                found += [{"data": None}, {"data": {"name": toy.PLANES, "channels": channels}}]
            return found
        return []


def filled(options: type) -> dict[str, Any]:
    """The toy's components for slots that have no default; of several data sets the second is one of other images."""
    toys = {kind: toy.CONFIG[key] for key, (kind, _) in SLOTS.items() if key in toy.CONFIG}
    wanted = {f.name: f.metadata["slot"] for f in attrs.fields(options) if f.metadata.get("slot_default") is REQUIRED}
    found = {name: toys[kind] for name, kind in wanted.items() if kind in toys}
    for name in [name for name, kind in wanted.items() if kind == "dataset"][1:]:
        found[name] = {**toys["dataset"], "split": "test"}
    return found


def not_the_users(error: ConfigError) -> list[Problem]:
    """The problems that are not about files of the user's."""
    return [problem for problem in error.problems if problem.key.rpartition(".")[2] not in USERS]


def patch_size(component: Any, options: Any) -> int:
    """Side of a backbone's patches in pixels. Raises DataError where its options are no good."""
    for pixels in SIZES[:-1]:
        with contextlib.suppress(DataError):  # no multiple of its patches, perhaps
            return component.shape(options, 3, pixels).patch_size
    return component.shape(options, 3, SIZES[-1]).patch_size


def find(name: str | ModuleType, options: Options | None = None) -> Subject:
    """The plugin of a name: its own, its package's (with or without "dinomx-") or its package's folder, or that of a module of
    declarations, installed or not. Raises PluginError where there is none."""
    registry = discover()
    given = name.__name__ if isinstance(name, ModuleType) else project_of(Path(name)) or name
    for plugin in registry.plugins:
        if given in (plugin.name, plugin.distribution, plugin.distribution.removeprefix("dinomx-"), plugin.module):
            return Subject(plugin, options or {})
    try:
        if not MODULE.fullmatch(given):
            raise ModuleNotFoundError(name=given)
        module = importlib.import_module(given)
    except Exception as error:
        if not isinstance(error, ImportError) or (error.name != given.partition(".")[0] and error.name != given):
            raise PluginError(f"{given} cannot be imported: {type(error).__name__}: {error}") from error
        known = ", ".join(plugin.name for plugin in registry.plugins)
        message = f'no plugin is called "{given}"; installed: {known}. Install yours with: pip install -e .'
        raise PluginError(message) from None
    return Subject(discover([module]).plugins[-1], options or {})


def project_of(folder: Path) -> str:
    """The name of the package that a folder holds; "" where it holds none. Raises PluginError where its pyproject.toml is no TOML."""
    told = folder / "pyproject.toml"
    try:
        return tomli.loads(told.read_text("utf-8")).get("project", {}).get("name", "") if told.is_file() else ""
    except ValueError as error:
        raise PluginError(f"{told} is no TOML: {error}") from None


def installed() -> Iterator[Subject]:
    """Every installed plugin."""
    for plugin in discover().plugins:
        yield Subject(plugin, {})
