"""Checks of data sets."""

import json
import pickle
import subprocess
import sys
from collections.abc import Iterator

import torch

from dinomx_core.declare.facts import DataInfo
from dinomx_core.errors import DataError
from dinomx_core.planning.walk import as_table
from dinomx_core.testing.findings import check
from dinomx_core.testing.packages import environment
from dinomx_core.testing.runs import scrambled
from dinomx_core.testing.subject import Part
from dinomx_core.training.construct import construct
from dinomx_core.training.contracts import Dataset
from dinomx_core.training.flow import Item

SOME = 200  # images that are read
TYPES = (torch.uint8, torch.uint16, torch.int16, torch.int32, torch.float32)
COUNTS = """
import importlib, json, sys
from dinomx_core.declare.discover import discover
from dinomx_core.planning.convert import choose, make_converter
registry = discover([importlib.import_module(name) for name in {!r}])
chosen = choose(make_converter(registry), registry, "dataset", json.loads({!r}), "data", None)
chosen.component.inspect(chosen.options)
print("torch" in sys.modules)
"""


def opened(part: Part) -> tuple[Dataset, DataInfo]:
    """The data set, and what is declared of it."""
    return part.subject.once(str(part), lambda: (construct(part.chosen), part.component.inspect(part.chosen.options)))


def numbers(data: Dataset) -> list[int]:
    """Some of its images' numbers, the first and the last among them."""
    count = len(data)
    return sorted({*range(0, count, max(1, count // SOME)), count - 1})


@check("dataset", "count", "let `inspect` and the data set find the same images, by the same function")
def count(part: Part) -> Iterator[str]:
    """It has as many images as `inspect` counts, more than none."""
    data, info = opened(part)
    if len(data) != info.count or not len(data):
        yield f"it has {len(data)} images, and `inspect` counts {info.count}"


@check("dataset", "torch-free", "count files and read headers in `inspect`; import torch where images are read")
def torch_free(part: Part) -> Iterator[str]:
    """`inspect` counts without importing torch."""
    modules = [module.__name__ for module in part.subject.modules]
    code = COUNTS.format(modules, json.dumps(as_table(part.chosen)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    if done.returncode:
        yield f"`inspect` fails in a process of its own: {done.stderr.strip().splitlines()[-1]}"
    elif done.stdout.split()[-1] == "True":
        yield "`inspect` imports torch"


@check("dataset", "items", "give `Item(image, label, id)`, and raise DataError for what cannot be read")
def items(part: Part) -> Iterator[str]:
    """Images are (C, H, W) with the declared channels, ids are there and differ, labels are of the declared kind."""
    data, info = opened(part)
    ids: dict[str, int] = {}
    for number in numbers(data):
        try:
            item = data[number]
        except DataError:
            continue  # what cannot be read is told so
        if fault := fault_of(item, info):
            yield f"image {number}: {fault}"
            return
        if item.id in ids:
            yield f'the images {ids[item.id]} and {number} have the same id "{item.id}"'
            return
        ids[item.id] = number
    if not ids:
        yield "none of its images can be read"


def fault_of(item: Item, info: DataInfo) -> str:
    """What is wrong with an image."""
    wanted = info.channels if item.channels is None else len(item.channels)
    if item.image.ndim != 3 or len(item.image) != wanted:
        return f"it is {tuple(item.image.shape)}, expected (C, H, W) with {wanted} channels"
    if item.image.dtype not in TYPES:
        return f"it is of {item.image.dtype}, expected uint8, uint16, int16, int32 or float32"
    if not item.id:
        return "it has no id, by which messages and embeddings name it"
    if item.label is not None and (fault := label_fault(item.label, info)):
        return fault
    return (
        "" if item.label is None or info.labelled else f"it has the label {item.label!r}, and `inspect` tells of none"
    )


def label_fault(label: object, info: DataInfo) -> str:
    """What is wrong with a label."""
    known = len(info.classes)
    if info.label_kind == "number":
        good = isinstance(label, float)
        return "" if good else f"its label is {label!r}, expected a float (label_kind is number)"
    if info.label_kind == "classes":
        good = isinstance(label, tuple) and all(isinstance(one, int) and 0 <= one < known for one in label)
        return "" if good else f"its label is {label!r}, expected a tuple of numbers below {known}"
    good = isinstance(label, int) and not isinstance(label, bool) and 0 <= label < known
    return "" if good or not info.classes else f"its label is {label!r}, expected a number from 0 to {known - 1}"


@check(
    "dataset",
    "stateless",
    "let reading follow from the image's number alone: any worker may read any image, in any order",
)
def stateless(part: Part) -> Iterator[str]:
    """An image is the same whenever it is read, in any order, and in a copy that was sent to a worker."""
    data, _ = opened(part)
    some = numbers(data)[:8]
    other = pickle.loads(pickle.dumps(data))
    with scrambled(1):
        first = {number: read(data, number) for number in some}
    with scrambled(2):
        again = {number: read(data, number) for number in reversed(some)}
        sent = {number: read(other, number) for number in some}
    for number, item in first.items():
        for found, how in ((again[number], "read again"), (sent[number], "read in a worker")):
            if not same(item, found):
                yield f"image {number} is another when it is {how}"
                return


def read(data: Dataset, number: int) -> Item | None:
    """An image; None where it cannot be read."""
    try:
        return data[number]
    except DataError:
        return None


def same(one: Item | None, other: Item | None) -> bool:
    """Whether two readings agree."""
    if one is None or other is None:
        return one is other
    return torch.equal(one.image, other.image) and (one.id, one.label, one.group) == (
        other.id,
        other.label,
        other.group,
    )
