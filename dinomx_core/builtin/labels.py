"""Labels of images as arrays: a class, several classes, or a number. No torch.

A class each is (N,) int32, -1 for none; several are (N, classes) int8, 1 where an image is of a class and -1 in the row of one without a
label; numbers are (N,) float64, NaN for none.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dinomx_core.builtin.columns import LIST, Column, in_order, single
from dinomx_core.declare.facts import LabelKind


def kind_of(labels: np.ndarray) -> LabelKind:
    """What an array of labels holds."""
    return "classes" if labels.ndim == 2 else "number" if labels.dtype.kind == "f" else "class"


def missing(labels: np.ndarray) -> np.ndarray:
    """(N,) bool: images without a label."""
    found: Any = {"class": lambda: labels < 0, "classes": lambda: labels[:, 0] < 0, "number": lambda: labels != labels}
    return found[kind_of(labels)]()


def label_at(labels: np.ndarray, index: int) -> int | tuple[int, ...] | float | None:
    """An image's label as items have it."""
    found = labels[index]
    if labels.ndim == 2:
        return None if found[0] < 0 else tuple(found.nonzero()[0].tolist())
    if labels.dtype.kind == "f":
        return None if math.isnan(found) else float(found)
    return None if found < 0 else int(found)


def unlabelled(labels: np.ndarray, classes: Sequence[str] = ("any",)) -> tuple[str, ...]:
    """What to say of images without a label among labelled ones."""
    without = int(missing(labels).sum())
    return (f"{without} of {len(labels)} images have no label",) if 0 < without < len(labels) and classes else ()


def names_in(value: Any, between: str) -> list[str] | None:
    """Names of classes in a list or a text; None where there is no value. Raises ValueError for anything else."""
    if value is None:
        return None
    if isinstance(value, str) and value.startswith(LIST):
        value = json.loads(value[len(LIST) :])
    if isinstance(value, (list, tuple)):
        if not all(isinstance(name, (str, int)) for name in value):
            raise ValueError("holds no names")
        return [str(name) for name in value]
    if not isinstance(value, (str, int)):
        raise ValueError("is no text")
    return [name.strip() for name in str(value).split(between) if name.strip()]


def number_in(value: Any) -> float:
    """A finite number, NaN where there is no value. Raises ValueError for anything else."""
    if value is None or value != value:
        return math.nan
    try:
        found = float(value)
    except TypeError:
        raise ValueError("is no number") from None
    if not math.isfinite(found):
        raise ValueError("is not finite")
    return found


def labels_of(values: Sequence[Any], options: Any) -> tuple[tuple[str, ...], np.ndarray, list[int]]:
    """Classes in order, labels of several classes or numbers as `options` (label_kind, separator) say, and which values are none."""
    parsed: list[Any] = []
    wrong = []
    for row, value in enumerate(values):
        try:
            parsed.append(number_in(value) if options.label_kind == "number" else names_in(value, options.separator))
        except ValueError:
            wrong.append(row)
            parsed.append(None)
    if options.label_kind == "number":
        return (), np.array([math.nan if value is None else value for value in parsed], np.float64), wrong
    classes, labels = several(parsed, ())
    return classes, labels, wrong


def several(names: Sequence[Sequence[str] | None], known: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Classes, `known` ones first, and labels of images that are of several; without classes nothing has a label."""
    every = tuple(dict.fromkeys(name for found in names for name in found or ()))
    classes, _ = in_order(Column(np.zeros(0, np.int32), (*known, *every)), known)
    if not classes:
        return (), np.full(len(names), -1, np.int32)
    numbers = {name: number for number, name in enumerate(classes)}
    labels: np.ndarray = np.zeros((len(names), len(classes)), np.int8)
    for row, found in enumerate(names):
        if found is None:
            labels[row] = -1
        else:
            labels[row, [numbers[name] for name in found]] = 1
    return classes, labels


def coded(column: Column, kind: LabelKind, between: str, known: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Classes and labels of a column of texts; what is no number is no label."""
    if kind == "class":
        return in_order(single(column), known)
    if kind == "classes":
        classes, rows = several([*(names_in(value, between) for value in column.values), None], known)
        return classes, rows[column.codes]
    numbers = []
    for value in column.values:
        try:
            numbers.append(number_in(value))
        except ValueError:
            numbers.append(math.nan)
    return (), np.array([*numbers, math.nan], np.float64)[column.codes]
