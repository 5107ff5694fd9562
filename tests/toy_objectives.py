"""Objectives of other families, to show that the contracts have room for them: declarations and, below, torch parts."""

import attrs

from dinomx_core import Augmentation, Head, HeadShape, Loss, Preprocessing, Request, Strategy, View, hookimpl, option
from dinomx_core.builtin.crops import Crops


@attrs.frozen
class Pixels:
    """Predict the pixels of dropped patches from the kept ones, as masked autoencoders do."""

    head: str = option("decoder", "label of the decoder")


@attrs.frozen
class Predict:
    """Predict the mean of the teacher's last blocks from the student through a student-only predictor."""

    head: str = option("predictor", "label of the predictor")
    layers: int = option(2, "last blocks to learn from")


@attrs.frozen
class Linear:
    """One linear layer."""

    outputs: int = option(16, "features that come out")


@attrs.frozen
class Masked:
    """Any number of global crops, half of their patches masked."""

    globals: Crops = option(doc="crops")
    mean: list[float] = option([0.3], "subtracted")
    std: list[float] = option([0.3], "divided by")


@attrs.frozen
class Same:
    """A teacher that is the student itself."""


ROOT = "tests.toy_parts:"


@hookimpl
def dinomx_losses():
    yield Loss(
        "pixels",
        Pixels,
        ROOT + "PixelLoss",
        requests=lambda o: [Request("student", "global", masking="drop", head=o.head, select="all")],
    )
    yield Loss(
        "predict",
        Predict,
        ROOT + "PredictLoss",
        requests=lambda o: [
            Request("student", "global", masking="replace", head=o.head, select="patches"),
            Request("teacher", "global", select="all", layers=o.layers),
        ],
    )


@hookimpl
def dinomx_heads():
    yield Head(
        "decoder", Linear, ROOT + "Decoder", shape=lambda o, width: HeadShape(o.outputs, o.outputs * (width + 1))
    )
    yield Head(
        "predictor", Linear, ROOT + "Predictor", shape=lambda o, width: HeadShape(o.outputs, o.outputs * (width + 1))
    )


@hookimpl
def dinomx_augmentations():
    yield Augmentation(
        "masked",
        Masked,
        ROOT + "MaskedCrops",
        views=lambda o: [View("global", o.globals.count, o.globals.size, masked=True)],
        preprocessing=lambda o: Preprocessing(min(o.globals.size), o.globals.size, (0.3,), (0.3,)),
    )


@hookimpl
def dinomx_strategies():
    yield Strategy("same", Same, ROOT + "SameTeacher")
