"""What a report and trackers may tell: everything as it is, or names of the user's data as hashes."""

import re
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import attrs

from dinomx_core.declare.values import Chosen
from dinomx_core.planning.plan import Plan
from dinomx_core.planning.spec import RunSpec
from dinomx_core.planning.walk import chosen_parts, tables
from dinomx_core.training.look.names import as_they_are, hashed

DATA = (
    "dataset",
    "reader",
    "intensity",
    "placement",
)  # kinds whose options may name files, columns, groups and classes
LEFT_OUT = "left out, since report.hash_ids is true"


class Telling:
    """Names as they may be told. The key of the hashes is this process's own."""

    def __init__(self, plan: Plan):
        self.hides = plan.spec.report.hash_ids
        self.name = hashed() if self.hides else as_they_are
        self.hidden = set(free_texts(plan.spec)) - {""} if self.hides else set()

    def options(self, plan: Plan) -> dict[str, Any]:
        """Every resolved option by its key path."""
        return {
            ".".join(self.value(part) for part in value.key.split(".")): self.value(value.value)
            for value in plan.values
        }

    def value(self, value: Any) -> Any:
        """An option's value, or a part of its key."""
        if isinstance(value, (list, tuple)):
            return [self.value(part) for part in value] if self.hides else value
        return self.name(value) if isinstance(value, str) and value in self.hidden else value

    def text(self, text: str) -> str:
        """A text in which values of options may stand."""
        for name in sorted(self.hidden, key=len, reverse=True):
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", self.name(name), text)
        return text

    def error(self, error: BaseException) -> str:
        """An error, whose text may name files."""
        return f"{type(error).__name__}: {LEFT_OUT if self.hides else first_line(error)}"


def first_line(error: BaseException) -> str:
    """What an error says first."""
    return str(error).strip().partition("\n")[0]


def free_texts(spec: RunSpec) -> Iterator[str]:
    """What a config says in words of its own about data: paths, columns, names of classes and groups, and labels of sources."""
    for _, chosen in chosen_parts(tables(spec)):
        if chosen.component.kind in DATA:
            yield from texts_in(chosen.options)


def texts_in(options: Any) -> Iterator[str]:
    """Texts in options, at any depth, that are neither defaults nor a choice among words of ours."""
    for field in attrs.fields(attrs.resolve_types(type(options))):
        value, default = getattr(options, field.name), field.default
        default = default.factory() if isinstance(default, attrs.Factory) else default  # type: ignore[arg-type]
        if value != default and not is_choice(field.type):
            yield from texts_of(value)


def texts_of(value: Any) -> Iterator[str]:
    """Texts in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from (*texts_of(key), *texts_of(part))
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from texts_of(part)
    elif attrs.has(type(value)) and not isinstance(value, Chosen):
        yield from texts_in(value)


def is_choice(kind: Any) -> bool:
    """Whether a type is one of some words."""
    return get_origin(kind) is Literal or any(is_choice(part) for part in get_args(kind) if not isinstance(part, str))
