"""Declarations. No torch."""

from typing import Literal

import attrs

from dinomx_core import Draft, Length, Placement, fraction, hookimpl, not_negative, option

DINOMX_API = 1


def not_negative_values(instance: object, attribute: object, value: dict[str, float]) -> None:
    """attrs validator: a table of numbers, none below 0."""
    not_negative(instance, attribute, list(value.values()))


@attrs.frozen
class LabelGuided:
    """Crops whose centres lie in objects of masks or boxes; only training sees these."""

    probability: float = option(0.5, "of each of the crops below to be put on an object", check=fraction)
    locals: int = option(4, "the first so many local crops of an image may be", check=not_negative)
    globals: int = option(0, "and the first so many global ones", check=not_negative)
    off_centre: float = option(
        0.0, "how far from a crop's middle its point may lie: 0 there, 1 anywhere in the crop", check=fraction
    )
    draw: Literal["objects", "pixels"] = option(
        "objects",
        "within a class: objects, each connected part of a mask and each box as likely as the next; pixels: large objects more often",
    )
    weights: dict[str, float] = option(
        {},
        "how often each class is drawn, in proportion, by its number in masks or its name in boxes; those left out: 1",
        check=not_negative_values,
    )


@attrs.frozen
class AttentionGuided:
    """Crops whose centres lie where the teacher looks, by maps of its attention that are made anew now and then."""

    probability: float = option(0.5, "of each of the crops below to be put where the teacher looks", check=fraction)
    locals: int = option(4, "the first so many local crops of an image may be", check=not_negative)
    globals: int = option(0, "and the first so many global ones", check=not_negative)
    mass: float = option(
        0.6, "share of the attention that the patches hold in which centres may lie: the brightest ones", check=fraction
    )
    off_centre: float = option(
        0.0, "how far from a crop's middle its point may lie: 0 there, 1 anywhere in the crop", check=fraction
    )
    every: Length = option(
        Length(5, "%"), "how often maps are made: of the images that come up a period later, by one forward pass each"
    )
    after: Length = option(Length(10, "%"), "until when crops lie anywhere, while the teacher has learnt nothing")


def check_attention_guided(options: AttentionGuided, draft: Draft) -> list[tuple[str, str]]:
    """There must be attention to look at."""
    if draft.backbone is not None and draft.backbone.convolutions is not None:
        return [("", "the backbone has no attention; take a transformer, or crops guided by labels (label-guided)")]
    return []


def check_label_guided(options: LabelGuided, draft: Draft) -> list[tuple[str, str]]:
    """Something must say what lies where; weights are of classes that there may be. Nothing is known of data that cannot be read."""
    if not draft.data.count:
        return []
    known = draft.data.marked
    unknown = [name for name in options.weights if not name.isdecimal() and name not in known]
    if draft.data.regions and unknown:
        there = f"boxes are of {', '.join(known)}" if known else "there are no boxes with classes"
        return [("weights", f'"{name}" is no class: {there}; masks name theirs by numbers') for name in unknown]
    if draft.data.regions or not options.probability:
        return []
    return [
        (
            "",
            "the images come without masks or boxes; give [data] a column of masks (manifest), or wrap it: "
            'name = "marked", images = {...}, masks = "masks/{stem}.png"',
        )
    ]


@hookimpl
def dinomx_placements():
    yield Placement(
        "label-guided", LabelGuided, "dinomx_label_guided.guided:LabelGuidedPlacement", check=check_label_guided
    )
    build = "dinomx_label_guided.guided:AttentionGuidedPlacement"
    yield Placement("attention-guided", AttentionGuided, build, check=check_attention_guided, attends=True)
