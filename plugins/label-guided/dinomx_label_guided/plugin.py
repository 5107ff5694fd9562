"""Declarations. No torch."""

from typing import Literal

import attrs

from dinomx_core import Draft, Placement, fraction, hookimpl, not_negative, option


def not_negative_values(instance: object, attribute: object, value: dict[str, float]) -> None:
    """attrs validator: a table of numbers, none below 0."""
    not_negative(instance, attribute, list(value.values()))


@attrs.frozen
class LabelGuided:
    """Crops whose centres lie in objects of masks or boxes; only training sees these."""

    probability: float = option(0.5, "of each of the crops below to be put on an object", check=fraction)
    locals: int = option(4, "the first so many local crops of an image may be", check=not_negative)
    globals: int = option(0, "and the first so many global ones", check=not_negative)
    draw: Literal["objects", "pixels"] = option(
        "objects",
        "within a class: objects, each connected part of a mask and each box as likely as the next; pixels: large objects more often",
    )
    weights: dict[str, float] = option(
        {},
        "how often each class is drawn, in proportion, by its number in masks or its name; those left out: 1",
        check=not_negative_values,
    )


def check_label_guided(options: LabelGuided, draft: Draft) -> list[tuple[str, str]]:
    """Something must say what lies where."""
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
