"""Tables as TOML with the reasons beside them."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from dinomx_core.builtin.propose.choices import Table

WIDE = 44  # columns before a reason


def toml(heading: Sequence[str], recipe: str, why: str, tables: Sequence[Table]) -> str:
    """The whole file."""
    lines = [f"# {line}" for line in heading]
    lines.append(with_reason(f"recipe = {literal(recipe)}", why))
    for table in tables:
        lines += ["", f"[{table.name}]", *body(table)]
    return "\n".join(lines) + "\n"


def body(table: Table) -> Iterator[str]:
    """A line a key."""
    for key, value in table.values.items():
        yield with_reason(f"{key} = {literal(value)}", table.why.get(key, ""))


def with_reason(line: str, why: str) -> str:
    """A line with its reason behind it."""
    return f"{line:<{WIDE}} # {why}" if why else line


def literal(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {literal(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(literal(inner) for inner in value) + "]"
    return json.dumps(value, ensure_ascii=False)
