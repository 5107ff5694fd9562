"""The grid of a sweep: keys with the values that each of them takes, and every combination of these. No torch."""

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from dinomx_core.errors import ConfigError, Problem
from dinomx_core.planning.document import parse_override, split_key

FLAG = "--grid"
EXAMPLE = "expected KEY=VALUE,VALUE, such as optimizer.lr=1e-4,1e-3"
OURS = {
    "run.seed": "seeds are asked for by --seeds",
    "run.name": "runs are named by their values",
    "run.out": "give --out",
}
LONGEST = 100  # characters of a run's name
NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")
MARK = "+"  # before a digest, so that 1e+4 has one too and stands for nothing else


@attrs.frozen
class Axis:
    """A key and its values, as TOML texts."""

    key: str
    values: tuple[str, ...]


@attrs.frozen
class Combination:
    """A value of each axis. `words`: what a run's name says of it, "" where there is no axis."""

    values: dict[str, str]
    words: str

    @property
    def settings(self) -> list[str]:
        """As `--set` takes them."""
        return [f"{key}={value}" for key, value in self.values.items()]


def read_grid(grid: Iterable[str] | Mapping[str, Sequence[Any]], settings: Sequence[str]) -> list[Axis]:
    """The axes of "KEY=VALUE,VALUE" texts, or of {key: values}. `settings`: "KEY=VALUE" texts that hold for all runs. Raises ConfigError
    with every problem found."""
    texts = (
        [f"{key}={','.join(map(as_toml, values))}" for key, values in grid.items()]
        if isinstance(grid, Mapping)
        else grid
    )
    axes, problems = list[Axis](), list[Problem]()
    taken = {split_key(setting.partition("=")[0]): "--set" for setting in settings}
    for text in texts:
        place = f"{FLAG} {text}"
        try:
            axis = read_axis(text, place)
        except ConfigError as error:
            problems += error.problems
            continue
        path = split_key(axis.key)
        if axis.key in OURS:
            problems.append(Problem(f"is no key of a grid; {OURS[axis.key]}", axis.key, place))
        for other, flag in taken.items():
            if other[: len(path)] == path[: len(other)]:
                message = f"{'.'.join(other)} is given by {flag} too; keep one of them"
                problems.append(Problem(message, axis.key, place))
        taken[path] = FLAG
        axes.append(axis)
    if problems:
        raise ConfigError(problems)
    return axes


def read_axis(text: str, place: str) -> Axis:
    """One "KEY=VALUE,VALUE". Raises ConfigError."""
    key, equals, given = (part.strip() for part in text.partition("="))
    values = split_values(given)
    if not equals or not key or not all(values):
        raise ConfigError([Problem(EXAMPLE, place=place)])
    parsed: dict[str, str] = {}
    for value in values:
        same = json.dumps(parse_override(f"{key}={value}", FLAG).data, default=str)
        if same in parsed:
            raise ConfigError([Problem(f"{value} stands there twice (as {parsed[same]})", key, place)])
        parsed[same] = value
    return Axis(key, tuple(values))


def split_values(text: str) -> list[str]:
    """`1,[2, 3],"a,b"` -> `1`, `[2, 3]`, `"a,b"`: commas inside of brackets, braces and quotes divide nothing."""
    parts, depth, quote = [""], 0, ""
    for mark in text:
        if quote:
            quote = "" if mark == quote else quote
        elif mark in "\"'":
            quote = mark
        else:
            depth += (mark in "[{") - (mark in "]}")
            if mark == "," and depth == 0:
                parts.append("")
                continue
        parts[-1] += mark
    return [part.strip() for part in parts]


def as_toml(value: Any) -> str:
    """A value as one line of TOML."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {as_toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(as_toml, value))}]"
    return json.dumps(value)


def combinations(axes: Sequence[Axis]) -> list[Combination]:
    """All of them, the last axis changing fastest."""
    names = short_names([axis.key for axis in axes])
    found = []
    for values in itertools.product(*(axis.values for axis in axes)):
        words = "_".join(f"{name}={as_name(value)}" for name, value in zip(names, values))
        words = words if len(words) <= LONGEST else f"{words[:LONGEST]}{MARK}{digest(words)}"
        found.append(Combination({axis.key: value for axis, value in zip(axes, values)}, words))
    return found


def short_names(keys: Sequence[str]) -> list[str]:
    """Keys without their first part ("optimizer.lr" -> "lr"), where that still tells them apart and says what they are."""
    shorter = [key.partition(".")[2] or key for key in keys]
    return [key if name == "name" or shorter.count(name) > 1 else name for key, name in zip(keys, shorter)]


def as_name(value: str) -> str:
    """A value as a part of a folder's name; a digest of it where it holds marks that a name should not."""
    text = value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value
    name = NO_NAME.sub("-", text.strip("[]{} "))
    return text if name == text else f"{name}{MARK}{digest(text)}"


def digest(text: str) -> str:
    """Stands for a text in a name: the same in every sweep."""
    return hashlib.blake2b(text.encode(), digest_size=3).hexdigest()
