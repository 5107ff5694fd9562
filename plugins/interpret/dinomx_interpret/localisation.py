"""Options of the evaluator of localisation, and what it needs of its data. No torch."""

from collections.abc import Iterable
from typing import Literal

import attrs

from dinomx_core import Chosen, Draft, fraction, option, positive, slot

Boxes = Literal["attention", "lost", "tokencut"]


def between(instance: object, attribute: object, value: float) -> None:
    """attrs validator: above 0 and below 1."""
    if not 0 < value < 1:
        raise ValueError(f"must be above 0 and below 1, got {value!r}")


@attrs.frozen
class Localisation:
    """Whether the model attends to objects that it was never told of, and finds their boxes."""

    images: Chosen = slot("dataset", doc="images with masks or boxes, which only judge")
    head: int | Literal["mean", "chosen"] = option(
        "mean",
        "whose attention: the mean over heads, a head's by number from 0, or chosen: of the heads and their mean the one that points best "
        "on `validation`",
    )
    validation: Chosen | None = slot("dataset", None, "other images with masks or boxes, which choose the head")
    mass: float = option(
        0.6, "share of the attention that the brightest patches taken for the object hold", check=between
    )
    boxes: list[Boxes] = option(
        ["attention", "lost", "tokencut"],
        "by which ways to look for a box: the brightest patches, or two graphs on the last block's keys",
    )
    overlap: float = option(
        0.5, "intersection over union with an object's box above which a box is right", check=fraction
    )
    ignore: int = option(255, "number in masks of pixels that nobody judges; -1: none")
    batch_size: int = option(64, "images a forward pass", check=positive)


def check_localisation(options: Localisation, draft: Draft) -> Iterable[tuple[str, str]]:
    """There are objects, and images that choose where a head is to be chosen."""
    if options.head == "chosen" and options.validation is None:
        yield (
            "validation",
            'head = "chosen" needs images that choose; give them as `images` are given, or fix the head: "mean" or a number',
        )
    if isinstance(options.head, int) and options.head < 0:
        yield "head", f"is {options.head}; heads are numbered from 0"
    if draft.backbone is not None:
        if draft.backbone.convolutions is not None:
            yield (
                "",
                "the backbone has no attention to judge; take a transformer, or an evaluator of features (dense-knn, dense-linear)",
            )
        elif isinstance(options.head, int) and options.head >= draft.backbone.heads:
            yield (
                "head",
                f"the backbone has {draft.backbone.heads} heads, numbered from 0; there is no head {options.head}",
            )
    if options.head != "chosen" and options.validation is not None:
        yield "head", 'is fixed, so that validation chooses nothing; set head = "chosen", or leave validation out'
    for name in ("images", "validation"):
        chosen = getattr(options, name)
        if chosen is not None and not chosen.component.inspect(chosen.options).regions:
            yield name, "has no masks or boxes; give a manifest with a column of masks, or the data set `marked`"
    if options.validation is not None and same(options.images, options.validation):
        yield "validation", "is the set that is judged: choose on other images"


def same(one: Chosen, other: Chosen) -> bool:
    """Whether two slots name the same images."""
    return (one.component, one.options) == (other.component, other.options)
