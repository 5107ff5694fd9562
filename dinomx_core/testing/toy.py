"""A run so small that checks can make many of them: images of any number of channels, a loss that wants nothing but tokens, a config."""

import copy
from collections.abc import Mapping
from typing import Any

import attrs

from dinomx_core import DataInfo, Dataset, HowMasked, Loss, Request, hookimpl, option, positive

PLANES, NEIGHBOURS = "planes", "neighbours"
CONFIG: dict[str, Any] = {
    "run": {"steps": 3, "batch_size": 8, "device": "cpu", "threads": 1},
    "loader": {"workers": 0},
    "report": {"enabled": False},
    "data": {"name": "digits", "split": "train"},
    "backbone": {"name": "hf", "family": "vit", "width": 16, "depth": 2, "heads": 2, "patch_size": 4, "mask_token": True},
    "loss": {NEIGHBOURS: {}},
    "augmentation": {
        "name": "multicrop",
        "mean": [0.3],
        "std": [0.35],
        "globals": {"count": 2, "size": 16, "area": [0.5, 1.0], "jitter": 0.0},
    },
    "optimizer": {"lr": 1e-3},
}  # fmt: skip


def changed(config: Mapping[str, Any], *changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a config with changes merged into its tables; a value of None removes the key."""
    result = copy.deepcopy(dict(config))
    for change in changes:
        update(result, change)
    return result


def update(table: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """The same in place."""
    for key, value in changes.items():
        if value is None:
            table.pop(key, None)
        elif isinstance(value, dict) and isinstance(table.get(key), dict):
            update(table[key], value)
        else:
            table[key] = copy.deepcopy(value)


@attrs.frozen
class Planes:
    """Random images of smooth planes."""

    channels: int = option(5, "channels of an image", check=positive)
    count: int = option(48, "images", check=positive)


@attrs.frozen
class Neighbours:
    """The student's tokens of an image are to be the teacher's of the next one: it means nothing, and gives every token a gradient."""

    view: str = option("global", "crops that both see")
    masked: bool = option(False, "the student sees masked patches")


def neighbour_requests(options: Neighbours) -> list[Request]:
    """All tokens of both."""
    how: HowMasked = "replace" if options.masked else "none"
    return [Request("student", options.view, how, select="all"), Request("teacher", options.view, select="all")]


@hookimpl
def dinomx_datasets():
    yield Dataset(
        PLANES, Planes, "dinomx_core.testing.toy_parts:PlanesData", inspect=lambda o: DataInfo(o.count, o.channels)
    )


@hookimpl
def dinomx_losses():
    yield Loss(NEIGHBOURS, Neighbours, "dinomx_core.testing.toy_parts:NeighbourLoss", requests=neighbour_requests)
