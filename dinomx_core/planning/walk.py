"""Walks over a resolved spec: its components, its options of one type, all its values."""

from collections.abc import Iterator
from typing import Any

import attrs

from dinomx_core.declare.values import Chosen, Length, Size
from dinomx_core.planning.document import Path_
from dinomx_core.planning.spec import RunSpec


def nodes(value: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """A value and everything below it, each with its key path; a picked component's own and common options share its path."""
    yield path, value
    if isinstance(value, Chosen):
        yield from nodes(value.frame, path)
        yield from nodes(value.options, path)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from nodes(inner, (*path, key))
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from nodes(getattr(value, field.name), (*path, field.name))


def chosen_parts(value: Any) -> Iterator[tuple[Path_, Chosen]]:
    """Every component picked anywhere in a spec, slots inside options included."""
    return ((path, node) for path, node in nodes(value) if isinstance(node, Chosen))


def outer_sets(value: Any) -> Iterator[tuple[Path_, Chosen]]:
    """The data sets that are picked anywhere, without those that are parts of others, which tell of them."""
    last: Path_ | None = None
    for path, chosen in chosen_parts(value):
        if chosen.component.kind == "dataset" and (last is None or path[: len(last)] != last):
            last = path
            yield path, chosen


def typed_fields(spec: RunSpec, kind: type) -> Iterator[tuple[Path_, Any]]:
    """Every option of one type (Schedule, Length) in a spec with its key path."""
    return ((path, node) for path, node in nodes(tables(spec)) if isinstance(node, kind))


def tables(spec: RunSpec) -> dict[str, Any]:
    """The spec under the config's own table names."""
    rename = {"losses": "loss", "heads": "head", "strategies": "strategy"}
    return {rename.get(f.name, f.name): getattr(spec, f.name) for f in attrs.fields(RunSpec)}


def leaves(value: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Every resolved option of a spec with its key path, components by their name."""
    if isinstance(value, Chosen):
        yield (*path, "name"), value.component.name
        for part in (value.frame, value.options):
            if part is not None:
                yield from leaves(part, path)
    elif isinstance(value, Size):
        yield path, value.plain
    elif isinstance(value, Length):
        yield path, str(value) if value.unit != "steps" else int(value.amount)
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from leaves(getattr(value, field.name), (*path, field.name))
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif value is not None:
        yield path, as_table(value)


def as_table(value: Any) -> Any:
    """Options as plain TOML-like data that the reader turns into the same options again; None is left out."""
    if isinstance(value, Chosen):
        frame = as_table(value.frame) if value.frame is not None else {}
        return {"name": value.component.name, **frame, **as_table(value.options)}
    if isinstance(value, Size):
        return value.plain
    if isinstance(value, Length):
        return str(value) if value.unit != "steps" else int(value.amount)
    if attrs.has(type(value)):
        inner = ((f.name, getattr(value, f.name)) for f in attrs.fields(type(value)))
        return {name: as_table(part) for name, part in inner if part is not None}
    if isinstance(value, dict):
        return {key: as_table(part) for key, part in value.items() if part is not None}
    return [as_table(part) for part in value] if isinstance(value, (list, tuple)) else value
