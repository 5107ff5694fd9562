"""A recording as a data set and an augmentation, so that a replay goes through the same door as any run."""

import json
from pathlib import Path

import attrs
from safetensors import safe_open

from dinomx_core import Augmentation, DataInfo, Dataset, Preprocessing, View, hookimpl, option


@attrs.frozen
class Recorded:
    """A recording in the format of tests/goldens/README.md."""

    path: str = option(doc="the .safetensors file; its .json stands beside it")


@attrs.frozen
class Sizes:
    """What a recording's crops are: steps, images a step, channels, and the views."""

    steps: int
    batch: int
    channels: int
    views: tuple[View, ...]


def sizes(path: str) -> Sizes:
    """Read from the shapes alone."""
    with safe_open(path, "np") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - not a dict
    if "crops" in shapes:  # DINO
        steps, crops, batch, channels, size, _ = shapes["crops"]
        views = [View("global", 2, size)] + ([View("local", crops - 2, size)] if crops > 2 else [])
        return Sizes(steps, batch, channels, tuple(views))
    steps = sum(name.endswith("/global_crops") for name in shapes)
    rows, channels, size, _ = shapes["step0/global_crops"]
    views = [View("global", 2, size, masked="step0/masks" in shapes)]
    for view, name in (("local", "step0/local_crops"), ("gram", "step0/gram_teacher_crops")):
        if name in shapes and shapes[name][0]:
            places = "global" if view == "gram" else ""
            views.append(View(view, shapes[name][0] * 2 // rows, shapes[name][2], places=places))
    return Sizes(steps, rows // 2, channels, tuple(views))


def settings(path: str) -> dict:
    """The recording's JSON."""
    return json.loads(Path(path).with_suffix(".json").read_text("utf-8"))


def inspect_recorded(options: Recorded) -> DataInfo:
    """One image for every (step, slot)."""
    found = sizes(options.path)
    return DataInfo(found.steps * found.batch, found.channels)


def recorded_preprocessing(options: Recorded) -> Preprocessing:
    """Crops are normalised already."""
    size = sizes(options.path).views[0].size
    return Preprocessing(min(size), size, (0.0,), (1.0,))


@hookimpl
def dinomx_datasets():
    yield Dataset("recorded", Recorded, "tests.parity.recorded:RecordedData", inspect=inspect_recorded)


@hookimpl
def dinomx_augmentations():
    yield Augmentation(
        "recorded",
        Recorded,
        "tests.parity.recorded:RecordedCrops",
        views=lambda options: sizes(options.path).views,
        preprocessing=recorded_preprocessing,
    )
