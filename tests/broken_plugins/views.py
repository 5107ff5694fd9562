"""Augmentation, placement, masking, intensity and data set with a fault; "" has none."""

import attrs

from dinomx_core import (
    Augmentation,
    DataInfo,
    Dataset,
    Intensity,
    Masking,
    Placement,
    Preprocessing,
    View,
    hookimpl,
    option,
)

PARTS = "tests.broken_plugins.view_parts:"


@attrs.frozen
class Faulty:
    """One thing is wrong."""

    fault: str = option("", "which")


def inspect(options):
    if options.fault == "torch-free":
        import torch  # noqa: F401
    return DataInfo(20 + (options.fault == "count"), 1, ("even", "odd"))


@hookimpl
def dinomx_augmentations():
    yield Augmentation(
        "faulty",
        Faulty,
        PARTS + "FaultyCrops",
        views=lambda o: [View("global", 3 if o.fault == "views" else 2, 16)],
        preprocessing=lambda o: Preprocessing(16, 16, (0.3,), (0.3,)),
    )


@hookimpl
def dinomx_placements():
    yield Placement("faulty", Faulty, PARTS + "FaultyPlacement")


@hookimpl
def dinomx_maskings():
    yield Masking("faulty", Faulty, PARTS + "FaultyMasks", view=lambda options: "global")


@hookimpl
def dinomx_intensities():
    yield Intensity("faulty", Faulty, PARTS + "FaultyIntensity")


@hookimpl
def dinomx_datasets():
    yield Dataset("faulty", Faulty, PARTS + "FaultyData", inspect=inspect)
