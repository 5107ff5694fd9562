"""Document -> RunSpec: every section read, every problem gathered."""

import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import attrs
import cattrs

from dinomx_core.declare.discover import Registry
from dinomx_core.declare.values import Chosen
from dinomx_core.errors import UNREADABLE, ConfigError, DataError, Problem
from dinomx_core.planning.convert import choose, make_converter, problems_of
from dinomx_core.planning.document import Document, Path_
from dinomx_core.planning.misread import AtKey, UnknownKeys
from dinomx_core.planning.spec import LABELLED, SECTIONS, SLOTS, LoaderOptions, RunSpec
from dinomx_core.planning.walk import chosen_parts
from dinomx_core.planning.words import instead, written

# Labels name files, metrics and modules; torch keeps modules in a dict whose own methods must stay reachable.
LABEL = re.compile(r"(?!(?:keys|values|items|pop|clear|update|type|teacher)$)[A-Za-z0-9_-]+")


class _Reader:
    """Reads the sections of one document and gathers every problem."""

    def __init__(self, document: Document, registry: Registry):
        self.document, self.registry = document, registry
        self.converter = make_converter(registry)
        self.problems: list[Problem] = []

    def known(self) -> None:
        known = [*SECTIONS, *SLOTS, *LABELLED, "recipe", *(listing for _, listing in LABELLED.values() if listing)]
        if unknown := [key for key in self.document.data if key not in known]:
            there = {key: written(self.registry, key) for key in unknown}  # components by their names, of any plugin
            rest = [key for key in unknown if not there[key]]
            self.problems.extend(problems_of(UnknownKeys(rest, [*known, "stage"]), (), self.document))
            self.problems += [
                Problem(f"unknown key; here it is {ours}", key, self.document.place((key,)))
                for key, ours in there.items()
                if ours
            ]

    def attempt(self, path: Path_, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except (cattrs.BaseValidationError, AtKey, ValueError, TypeError) as error:
            self.problems.extend(problems_of(error, path, self.document))
            return None

    def section(self, name: str, cls: type) -> Any:
        return self.attempt((name,), lambda: self.converter.structure(self.document.data.get(name, {}), cls))

    def slot(self, name: str) -> Any:
        kind, default = SLOTS[name]
        table = self.document.data.get(name)
        if table is None and default is None:
            known = ", ".join(self.registry.names(kind))
            self.problems.append(Problem(f"missing; add [{name}] with a name ({known})", name, self.document.place(())))
            return None
        if table is None and not default:
            return None
        table = {} if table is None else table
        return self.attempt((name,), lambda: choose(self.converter, self.registry, kind, table, name, default or None))

    def labelled(self, name: str, wanted: Iterable[str] = ()) -> dict[str, Chosen]:
        kind, listing = LABELLED[name]
        tables = self.document.data.get(name, {})
        if not isinstance(tables, dict):
            picked = written(self.registry, tables) if isinstance(tables, str) else ""
            remedy = f"; write {picked}" if picked else instead(str(tables), ())
            message = f"expected tables [{name}.LABEL]{remedy}"
            self.problems.append(Problem(message, name, self.document.place((name,))))
            return {}
        labels = [*tables, *(label for label in wanted if label not in tables)]
        if listing and listing in self.document.data:
            listed = self.document.data[listing]
            labels = self.attempt((listing,), lambda: self.converter.structure(listed, list[str])) or []
        result = {}
        for label in dict.fromkeys(labels):
            if not LABEL.fullmatch(label):
                allowed = "letters, digits, - and _, and none of keys, values, items, pop, clear, update, type, teacher"
                message = f'"{label}" cannot be a label: {allowed}'
                self.problems.append(Problem(message, f"{name}.{label}", self.document.place((name, label))))
                continue
            path = (name, label) if label in tables else (listing,) if listing in self.document.data else (name, label)
            table = tables.get(label, {})
            before = len(self.problems)
            chosen = self.attempt(path, partial(choose, self.converter, self.registry, kind, table, label, label))
            if path == (listing,):  # its own options have no place of theirs, but a key
                inside = f"{listing}."
                self.problems[before:] = [
                    attrs.evolve(p, key=f"{name}.{label}.{p.key[len(inside) :]}") if p.key.startswith(inside) else p
                    for p in self.problems[before:]
                ]
            if chosen is not None:
                result[label] = chosen
        return result


def to_spec(document: Document, registry: Registry) -> RunSpec:
    """Type a document. Raises ConfigError with every problem at once."""
    reader = _Reader(document, registry)
    reader.known()
    sections = {name: reader.section(name, cls) for name, cls in SECTIONS.items()}
    slots = {name: reader.slot(name) for name in SLOTS}
    losses = reader.labelled("loss")
    if not losses and not any(p.key.startswith("loss") for p in reader.problems):
        hint = ", ".join(registry.names("loss")) or "none installed"
        reader.problems.append(
            Problem(f"no loss; add a table [loss.NAME] ({hint}) or a recipe", "loss", document.place(()))
        )
    head_tables = document.data.get("head", {})
    wanted: dict[str, None] = {}
    for label, loss in losses.items():
        for request in loss.component.requests(loss.options):
            if request.head and request.head not in wanted:
                wanted[request.head] = None
                given = isinstance(head_tables, dict) and request.head in head_tables
                if not given and request.head not in registry.names("head"):
                    message = f"there is no table [head.{request.head}] and no head component of that name"
                    reader.problems.append(
                        Problem(message, f"loss.{label}.head", document.place(("loss", label, "head")))
                    )
                    del wanted[request.head]
    heads = {label: head for label, head in reader.labelled("head", wanted).items() if label in wanted}
    strategies = reader.labelled("strategy")
    evaluate, tracker = reader.labelled("evaluate"), reader.labelled("tracker")
    if reader.problems:
        # The plan would find missing data later; told now, a config is mended in one go.
        for path, dataset in chosen_parts({**slots, "evaluate": evaluate}):
            if dataset.component.kind == "dataset":
                try:
                    dataset.component.inspect(dataset.options)
                except UNREADABLE as error:
                    key = (*path, error.key) if isinstance(error, DataError) and error.key else path
                    reader.problems.append(Problem(str(error), ".".join(key), document.place(key)))
        raise ConfigError(_unique(reader.problems))
    return RunSpec(
        losses=losses, heads=heads, strategies=strategies, evaluate=evaluate, tracker=tracker, **sections, **slots
    )


def to_measures(document: Document, registry: Registry) -> tuple[dict[str, Chosen], Chosen | None, LoaderOptions]:
    """The evaluations of a document, an intensity where it has one, and how images are read; other tables take no part. Raises
    ConfigError with every problem at once."""
    reader = _Reader(document, registry)
    reader.known()
    evaluate = reader.labelled("evaluate")
    intensity = reader.slot("intensity") if "intensity" in document.data else None
    loader = reader.section("loader", LoaderOptions)
    if not evaluate and not reader.problems:
        names = ", ".join(registry.names("evaluator"))
        reader.problems.append(
            Problem(f"no evaluation; add a table [evaluate.NAME] ({names})", "evaluate", document.place(()))
        )
    if reader.problems:
        raise ConfigError(_unique(reader.problems))
    return evaluate, intensity, loader


def _unique(problems: list[Problem]) -> list[Problem]:
    return list(dict.fromkeys(problems))
