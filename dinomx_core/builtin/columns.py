"""Columns of text values, one a sample, as numbers in arrays. No torch."""

from collections.abc import Sequence

import attrs
import numpy as np

LIST = "\x1f"  # begins the text of a value that is a list, in JSON


@attrs.frozen(eq=False)
class Column:
    """A value of each sample: its number in `values`, or -1."""

    codes: np.ndarray
    values: tuple[str, ...]


def gathered(columns: Sequence[Column]) -> Column:
    """Columns of several tars as one."""
    numbers: dict[str, int] = {}
    parts = []
    for column in columns:
        own = np.array([*(numbers.setdefault(value, len(numbers)) for value in column.values), -1], np.int32)
        parts.append(own[column.codes])  # -1 is the last
    codes = np.concatenate(parts)
    return Column(codes, tuple(numbers) if (codes >= 0).any() else ())


def single(column: Column) -> Column:
    """The column with lists of values missing."""
    if not any(value.startswith(LIST) for value in column.values):
        return column
    kept = [value for value in column.values if not value.startswith(LIST)]
    numbers = {value: number for number, value in enumerate(kept)}
    return Column(
        np.array([*(numbers.get(value, -1) for value in column.values), -1], np.int32)[column.codes], tuple(kept)
    )


def in_order(column: Column, known: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Values in order, `known` ones first as they stand there, numbers by size; and each sample's number among them."""
    if not column.values:
        return (), column.codes
    rest = sorted(set(column.values) - set(known))
    if all(value.removeprefix("-").isdecimal() for value in rest):
        rest.sort(key=int)
    names = (*known, *rest)
    numbers = {name: number for number, name in enumerate(names)}
    return names, np.array([*(numbers[value] for value in column.values), -1], np.int32)[column.codes]
