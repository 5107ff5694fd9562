"""Strict conversion of TOML values: nothing is coerced, every error has its key, its place and a suggestion."""

import difflib
import json
import math
import re
from collections.abc import Callable
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import attrs
import cattrs
from cattrs.errors import AttributeValidationNote, ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, override

from dinomx_core.declare.discover import Registry
from dinomx_core.declare.faults import cause, faulty
from dinomx_core.declare.values import Chosen, Length, Schedule, Size
from dinomx_core.errors import PluginError, Problem
from dinomx_core.planning.document import Document, Path_
from dinomx_core.planning.misread import AtKey, UnknownKeys, unforeseen
from dinomx_core.planning.words import instead, meant, written

ATTRS_BOUND = re.compile(r"^'[^']*' must be (.*): (.*)$")  # how attrs words a bound


def show(value: object) -> str:
    """A value as TOML would write it."""
    try:
        return json.dumps(value)
    except TypeError:
        return str(value)


def suggestion(name: str, known: list[str]) -> str:
    """`; did you mean "x"?`, or what there is."""
    if close := difflib.get_close_matches(name, known, n=1):
        return f'; did you mean "{close[0]}"?'
    return f"; known: {', '.join(sorted(known))}" if known else ""


def belongs(registry: Registry, kind: str, key: str) -> str:
    """` ("hf" has it)`, or nothing where no component of a kind has an option."""
    found = registry.having(kind, key)
    return f" ({', '.join(map(show, found))} {'has' if len(found) == 1 else 'have'} it)" if found else ""


def _strict(kind: type, words: str, accepts: Callable[[Any], bool]) -> Callable[[Any, Any], Any]:
    def hook(value: Any, _: Any) -> Any:
        if not accepts(value):
            raise ValueError(f"expected {words}, got {show(value)}")
        return kind(value)

    return hook


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_int(value) or (isinstance(value, float) and math.isfinite(value))


def _literal(value: Any, kind: Any) -> Any:
    choices = get_args(kind)
    if value not in choices or type(value) not in {type(choice) for choice in choices}:
        words = [str(c) for c in choices]
        hint = (meant(value, words) or suggestion(value, words)) if isinstance(value, str) else ""
        hint = hint if "mean" in hint else ""
        raise ValueError(f"expected one of {', '.join(show(c) for c in choices)}, got {show(value)}{hint}")
    return value


def _number_or_word(value: Any, kind: Any) -> Any:
    words = [word for inner in get_args(kind) for word in get_args(inner)]
    if not _is_int(value) and value not in words:
        raise ValueError(f"expected a whole number or {', '.join(show(word) for word in words)}, got {show(value)}")
    return value


def make_converter(registry: Registry) -> cattrs.Converter:
    """A converter that coerces nothing and knows how tables pick components."""
    converter = cattrs.Converter(detailed_validation=True)
    converter.register_structure_hook(bool, _strict(bool, "true or false", lambda v: isinstance(v, bool)))
    converter.register_structure_hook(int, _strict(int, "a whole number", _is_int))
    converter.register_structure_hook(float, _strict(float, "a number", _is_number))
    converter.register_structure_hook(str, _strict(str, "a text", lambda v: isinstance(v, str)))
    converter.register_structure_hook(Length, lambda value, _: Length.parse(value))
    converter.register_structure_hook(Size, lambda value, _: Size.parse(value))
    converter.register_structure_hook_func(lambda t: get_origin(t) is Literal, _literal)
    converter.register_structure_hook_func(
        lambda t: get_origin(t) in (Union, UnionType) and int in get_args(t), _number_or_word
    )

    def structure_list(value: Any, kind: Any) -> Any:
        if not isinstance(value, list):
            raise ValueError(f"expected an array, got {show(value)}")
        item = get_args(kind)[0]
        result = []
        for number, entry in enumerate(value, 1):
            try:
                result.append(converter.structure(entry, item))
            except Exception as error:
                found = problems_of(error, (), Document({}, {}))
                raise ValueError(f"item {number}: {'; '.join(str(problem) for problem in found)}") from None
        return result

    converter.register_structure_hook_func(lambda t: get_origin(t) is list, structure_list)

    def structure_one_or_more(value: Any, kind: Any) -> Any:
        if not isinstance(value, (str, list)):
            raise ValueError(f"expected a text or an array of texts, got {show(value)}")
        return value if isinstance(value, str) else structure_list(value, list[str])

    converter.register_structure_hook_func(
        lambda t: get_origin(t) in (Union, UnionType) and set(get_args(t)) == {str, list[str]}, structure_one_or_more
    )

    def attrs_hook(cls: type) -> Callable[[Any, Any], Any]:
        fields = attrs.fields(attrs.resolve_types(cls))
        hooks: dict[str, Any] = {f.name: override(struct_hook=_field_hook(converter, registry, f)) for f in fields}
        structure: Any = make_dict_structure_fn(
            cls,
            converter,
            _cattrs_detailed_validation=True,
            **hooks,
        )
        known = [f.name for f in fields]
        defaults = {
            f.name: f.metadata["slot_default"] for f in fields if isinstance(f.metadata.get("slot_default"), str)
        }

        def hook(value: Any, _: Any) -> Any:
            if not isinstance(value, dict):
                raise ValueError(f"expected a table, got {show(value)}")
            errors: list[Exception] = []
            if unknown := [key for key in value if key not in known]:
                errors.append(UnknownKeys(unknown, known))
                value = {key: v for key, v in value.items() if key in known}
            value = {**{name: {"name": default} for name, default in defaults.items()}, **value}
            try:
                result = structure(value, cls)
            except cattrs.BaseValidationError as group:
                errors.extend(group.exceptions)
            if errors:
                raise cattrs.ClassValidationError("", errors, cls)
            return result

        return hook

    converter.register_structure_hook_factory(lambda t: attrs.has(t) and t is not Chosen, attrs_hook)
    return converter


def _field_hook(converter: cattrs.Converter, registry: Registry, field: attrs.Attribute) -> Callable[[Any, Any], Any]:
    """Structure one field, then run its validator, so that a bad value is reported at its own key."""

    def hook(value: Any, kind: Any) -> Any:
        if "slot" in field.metadata:
            default = field.metadata["slot_default"]
            return choose(converter, registry, field.metadata["slot"], value, field.name, default)
        if "slots" in field.metadata:
            return _several(converter, registry, field.metadata["slots"], value)
        if kind is Schedule:
            result = _schedule(converter, value, field.default)
        else:
            result = converter.structure(value, kind)
        if field.validator is not None:
            field.validator(None, field, result)
        return result

    return hook


def _schedule(converter: cattrs.Converter, value: Any, default: Any) -> Schedule:
    if _is_number(value):
        if isinstance(default, Schedule) and default.shape != "constant":
            return attrs.evolve(default, peak=float(value))
        return Schedule.constant(value)
    if isinstance(value, dict):
        if isinstance(default, Schedule) and "peak" not in value:
            value = {"peak": default.peak, **value}
        return converter.structure(value, Schedule)
    raise ValueError(
        f'expected a number or a table such as {{ peak = 1e-3, end = 1e-6, warmup = "10%" }}, got {show(value)}'
    )


def choose(converter: cattrs.Converter, registry: Registry, kind: str, table: Any, label: str, default: Any) -> Chosen:
    """Read a table that picks a component: `name`, the options common to its kind, and the component's own."""
    if not isinstance(table, dict):
        remedy = f"; write {{ name = {show(table)} }}" if table in registry.names(kind) else ""
        raise ValueError(f"expected a table, got {show(table)}{remedy}")
    name = table.get("name", default)
    if not isinstance(name, str):
        if "name" in table:
            raise AtKey("name", f"expected the name of a {kind}, got {show(name)}")
        raise AtKey("name", f"missing; installed {kind}s: {', '.join(registry.names(kind))}")
    try:
        component = registry.find(kind, name)
    except PluginError as error:
        elsewhere = "" if "did you mean" in str(error) or name in registry.names(kind) else written(registry, name)
        remedy = f"; write {elsewhere}" if elsewhere else ""
        raise AtKey("name" if "name" in table else "", f"{error}{remedy}") from None
    common = [f.name for f in attrs.fields(component.frame)] if component.frame else []
    rest = {key: value for key, value in table.items() if key != "name" and key not in common}
    parts: list[Any] = []
    errors: list[Exception] = []
    for cls, values in ((component.options, rest), (component.frame, {k: table[k] for k in common if k in table})):
        try:
            parts.append(converter.structure(values, cls) if cls else None)
        except Exception as error:
            if component.package and (found := unforeseen(error)):
                key, reason = found
                what = f'its option "{key}" cannot be read' if key else "its options cannot be read"
                raise faulty(component, f"{what}: {cause(reason)}") from error
            if not isinstance(error, cattrs.BaseValidationError):
                raise
            for inner in error.exceptions:
                if isinstance(inner, UnknownKeys):
                    inner.known = ["name", *common, *inner.known]
                    inner.elsewhere = {key: belongs(registry, kind, key) for key in inner.keys}
                errors.append(inner)
    if errors:
        raise cattrs.ClassValidationError("", errors, component.options)
    return Chosen(label, component, parts[0], parts[1])


def _several(converter: cattrs.Converter, registry: Registry, kind: str, tables: Any) -> dict[str, Chosen]:
    """Read a table of tables that each pick a component, all of them with their faults."""
    if not isinstance(tables, dict):
        raise ValueError(f"expected a table of tables, got {show(tables)}")
    found: dict[str, Chosen] = {}
    errors: list[Exception] = []
    for label, table in tables.items():
        try:
            found[label] = choose(converter, registry, kind, table, label, label)
        except Exception as error:
            error.add_note(AttributeValidationNote("", label, Any))
            errors.append(error)
    if errors:
        raise cattrs.ClassValidationError("", errors, dict)
    return found


def problems_of(error: BaseException, path: Path_, document: Document) -> list[Problem]:
    """Flatten an exception tree into problems with places."""
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            if isinstance(error, KeyError) and error.args == (note.name,):
                return [Problem("missing", ".".join((*path, note.name)), document.place(path))]
            path = (*path, note.name)
            break
    if isinstance(error, BaseExceptionGroup):
        return [p for inner in error.exceptions for p in problems_of(inner, path, document)]
    if isinstance(error, UnknownKeys):
        return [
            Problem(
                f"unknown key{instead(key, path) or suggestion(key, error.known)}{error.elsewhere.get(key, '')}",
                ".".join((*path, key)),
                document.place((*path, key)),
            )
            for key in error.keys
        ]
    if isinstance(error, AtKey):
        path = (*path, error.key) if error.key else path
    elif not isinstance(error, (ValueError, TypeError, ForbiddenExtraKeysError)):
        raise error
    message = error.args[0] if error.args and isinstance(error.args[0], str) else str(error)
    message = ATTRS_BOUND.sub(r"must be \1, got \2", message)
    return [Problem(message, ".".join(path), document.place(path))]
