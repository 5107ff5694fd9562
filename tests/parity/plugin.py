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


def shape_of(path: str, name: str) -> list[int]:
    """Shape of a recorded tensor."""
    with safe_open(path, "np") as file:
        return file.get_slice(name).get_shape()


def settings(path: str) -> dict:
    """The recording's JSON."""
    return json.loads(Path(path).with_suffix(".json").read_text("utf-8"))


def inspect_recorded(options: Recorded) -> DataInfo:
    """One image for every (step, slot)."""
    steps, _, batch, channels, *_ = shape_of(options.path, "crops")
    return DataInfo(steps * batch, channels)


def recorded_views(options: Recorded) -> list[View]:
    """The first two crops are global."""
    _, crops, _, _, size, _ = shape_of(options.path, "crops")
    return [View("global", 2, size), View("local", crops - 2, size)]


def recorded_preprocessing(options: Recorded) -> Preprocessing:
    """Crops are normalised already."""
    size = shape_of(options.path, "crops")[-1]
    return Preprocessing(size, size, (0.0,), (1.0,))


@hookimpl
def dinomx_datasets():
    yield Dataset("recorded", Recorded, "tests.parity.recorded:RecordedData", inspect=inspect_recorded)


@hookimpl
def dinomx_augmentations():
    yield Augmentation(
        "recorded",
        Recorded,
        "tests.parity.recorded:RecordedCrops",
        views=recorded_views,
        preprocessing=recorded_preprocessing,
    )
