"""Write docs/config.md, docs/plugin-api.md and the end of docs/checking-a-plugin.md from the code: `python -m docs.generate`. A test fails
when a page is not up to date."""

import inspect
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from dinomx_core.declare.components import KINDS, Command, EvaluatorFrame, LossFrame, TrackerFrame
from dinomx_core.declare.discover import discover
from dinomx_core.declare.values import Chosen, Length, Schedule, Size
from dinomx_core.planning.spec import LABELLED, SECTIONS, SLOTS
from docs import plugin_api

PAGE = Path(__file__).parent / "config.md"
CHECKING = Path(__file__).parent / "checking-a-plugin.md"
WRITTEN = "Written from the code by `make docs`.\n"  # what stands above it in CHECKING is not
WHOLE = {"plugin": "a plugin as a whole", "component": "any component"}
WORDS = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    Length: "length",
    Schedule: "schedule",
    Size: "number, or array of two",
}
STAGES = """\
## Stages

Each `[[stage]]` table is a run of its own: its `name` names its folder below the run's, and its tables are merged over those outside of
the stages (`[stage.optimizer]` over `[optimizer]`). A stage starts from the student, the teacher and the heads of the one before it.
"""
HEAD = """\
# Config reference

Generated from the code by `make docs`.

A config is a TOML file. `recipe = "NAME"` starts from a plugin's TOML; your tables are merged into it, your arrays replace
its arrays, and a new `name` drops the recipe's keys of that table. `--set a.b=VALUE` on the command line comes on top.

**Lengths** are steps (`500`), a share of the run (`"10%"`) or passes over the training data (`"30 passes"`).

**Schedules** are a number (constant) or a table; a number over a recipe's or a default's schedule replaces its `peak`:
"""


def words(kind: Any) -> str:
    """A type for a reader."""
    if kind in WORDS:
        return WORDS[kind]
    origin, inner = typing.get_origin(kind), [a for a in typing.get_args(kind) if a is not type(None)]
    if origin is typing.Literal:
        return " or ".join(f'"{value}"' if isinstance(value, str) else str(value) for value in inner)
    if origin in (typing.Union, types.UnionType) and len(inner) > 1:
        return " or ".join(words(part) for part in inner)
    if origin is list:
        return f"array of {words(inner[0])}s"
    if origin is not None and inner:
        return words(inner[0])
    return "table"


def default(field: attrs.Attribute) -> str:
    """A field's default as TOML."""
    if "slot" in field.metadata:
        name = field.metadata["slot_default"]
        return f'`"{name}"`' if isinstance(name, str) else "" if name is None else "required"
    value = field.default
    if value is attrs.NOTHING:
        return "required"
    if isinstance(value, attrs.Factory):  # type: ignore[arg-type]
        value = value.factory()
    if isinstance(value, Schedule):
        if value.shape == "constant" and value.warmup.amount == 0:
            return f"`{value.peak:g}`"
        given = {f.name: getattr(value, f.name) for f in attrs.fields(Schedule)}
        shown = {k: v for k, v in given.items() if v != attrs.fields_dict(Schedule)[k].default or k == "peak"}
        return "`{ " + ", ".join(f"{k} = {toml(v)}" for k, v in shown.items()) + " }`"
    return "" if value is None else f"`{toml(value)}`"


def toml(value: Any) -> str:
    """A plain value as TOML writes it."""
    if isinstance(value, Length):
        return f"{value.amount:g}" if value.unit == "steps" else f'"{value}"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(f"{v:g}" if isinstance(v, float) else toml(v) for v in value) + "]"
    return f'"{value}"' if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)


def rows(cls: type) -> Iterator[str]:
    """A table of a class's options."""
    nested = []
    yield "| key | type | default | |"
    yield "|---|---|---|---|"
    for field in attrs.fields(attrs.resolve_types(cls)):
        kind = f"a {field.metadata['slot']} table" if field.type in (Chosen, Chosen | None) else words(field.type)
        gone = f" (deprecated: {remedy})" if (remedy := field.metadata.get("deprecated")) else ""
        yield f"| `{field.name}` | {kind} | {default(field)} | {field.metadata.get('doc', '')}{gone} |".replace(
            "|  |", "| |"
        )
        nested += [a for a in (field.type, *typing.get_args(field.type)) if attrs.has(a) and a not in (*WORDS, Chosen)]
    for inner in dict.fromkeys(nested):
        yield ""
        yield f"Each `{inner.__name__}` table: {inspect.getdoc(inner)}"
        yield ""
        yield from rows(inner)


def page() -> str:
    """The whole page."""
    lines = [HEAD, *rows(Schedule), "", inspect.getdoc(Schedule) or "", "", "# Sections", ""]
    for name, cls in SECTIONS.items():
        lines += [f"## `[{name}]`", "", inspect.getdoc(cls) or "", "", *rows(cls), ""]
    lines += ["## Tables that pick a component", "", "| table | kind | when left out |", "|---|---|---|"]
    lines += [
        f"| `[{table}]` | {kind} | {f'`{name}`' if name else 'required' if name is None else 'none'} |"
        for table, (kind, name) in SLOTS.items()
    ]
    for table, (kind, listing) in LABELLED.items():
        which = f'those that `{listing} = ["LABEL", …]` lists, else every table' if listing else "every table"
        lines.append(f"| `[{table}.LABEL]` | {kind}; `name` is the label where left out | {which} |")
    lines += [
        "",
        "Every loss also has:",
        "",
        *rows(LossFrame),
        "",
        "Every evaluator also has:",
        "",
        *rows(EvaluatorFrame),
        "",
        "Every tracker also has:",
        "",
        *rows(TrackerFrame),
        "",
    ]
    lines += [STAGES, "# Components", ""]
    registry = discover()
    for kind in KINDS:
        if kind is Command:
            continue  # no config names one
        for name in registry.names(kind.kind):  # type: ignore[attr-defined]
            component = registry.find(kind.kind, name)  # type: ignore[attr-defined]
            lines += [f"## {component.kind} `{name}`", ""]
            if component.kind == "recipe":
                lines += [f"{component.summary}.", ""]
            else:
                lines += [inspect.getdoc(component.options) or "", ""]
                lines += [*rows(component.options), ""] if attrs.fields(component.options) else []
    return "\n".join(lines).rstrip() + "\n"


def checks() -> str:
    """The page on checking: its own words, then every check."""
    from dinomx_core.testing.conform import all_checks

    above = CHECKING.read_text("utf-8").partition(WRITTEN)[0]
    lines: list[str] = []
    kinds: dict[str, list[Any]] = {}
    for one in all_checks():
        kinds.setdefault(one.kind, []).append(one)
    for kind, some in kinds.items():
        lines += [f"### Of {WHOLE.get(kind, f'a {kind}' if kind[0] not in 'aeiou' else f'an {kind}')}", ""]
        lines += ["| check | what holds where it passes | where it fails |", "|---|---|---|"]
        lines += [f"| `{o.name}`{' (slow)' if o.slow else ''} | {o.proves} | {o.remedy} |" for o in some]
        lines.append("")
    return f"{above}{WRITTEN}\n" + "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    PAGE.with_name("plugin-api.md").write_text(plugin_api.page(), "utf-8")
    CHECKING.write_text(checks(), "utf-8")
