"""Declarations: I-JEPA's loss and masking."""

from collections.abc import Iterable

import attrs

from dinomx_core import (
    Draft,
    Loss,
    Masking,
    Request,
    hookimpl,
    option,
    ordered_pair,
    positive,
    share_range,
)

DINOMX_API = 1

AXES = 2  # of an image; sines and cosines of each


@attrs.frozen
class Ijepa:
    """Predict the teacher's patch features of masked blocks from the patches around them (Assran et al. 2023)."""

    view: str = option("global", "crops whose patches are masked")
    width: int = option(384, "features of a token in the predictor", check=positive)
    depth: int = option(6, "blocks of the predictor", check=positive)
    heads: int = option(6, "attention heads of a block of the predictor", check=positive)


def requests(options: Ijepa) -> list[Request]:
    """The student sees the context alone, the teacher the whole crop."""
    return [
        Request("student", options.view, masking="drop", select="all"),
        Request("teacher", options.view, select="all"),
    ]


def check(options: Ijepa, draft: Draft) -> list[tuple[str, str]]:
    """Heads, sines and cosines divide the predictor's width; a patch is a place."""
    problems = []
    if options.width % options.heads:
        problems.append(("heads", f"width {options.width} does not divide over {options.heads} heads"))
    if options.width % (2 * AXES):
        problems.append(("width", f"{options.width} is not a multiple of {2 * AXES}, which positions need"))
    if draft.backbone and draft.backbone.channel_tokens:
        problems.append(("", "predicts one token a place, and this backbone has one a channel; take another backbone"))
    return problems


@attrs.frozen
class MultiBlock:
    """Target blocks that may overlap, as many patches in every crop of a step; all others are the context (Assran et al. 2023)."""

    view: str = option("global", "crops that are masked")
    blocks: int = option(4, "target blocks of a crop", check=positive)
    scale: list[float] = option([0.15, 0.2], "smallest and largest share of the patches in a block", check=share_range)
    aspect: list[float] = option([0.75, 1.5], "smallest and largest height / width of a block", check=ordered_pair)


def count_of(options: MultiBlock, patches: int, scale: float) -> int:
    """Patches in target blocks: what blocks of a scale that lie anywhere cover on the average."""
    return round(patches * (1 - (1 - scale) ** options.blocks))


def check_masking(options: MultiBlock, draft: Draft) -> list[tuple[str, str]]:
    """There is a target and a context in each of the crops' sizes."""
    patch = draft.backbone.patch_size if draft.backbone else 1
    problems = []
    for view in (view for view in draft.views if view.name == options.view):
        for size in (view.size, *view.others):
            rows, columns = (side // patch for side in size)
            least, most = (count_of(options, rows * columns, scale) for scale in options.scale)
            where = f"the {rows} x {columns} patches of {size} px"
            if least < 1:
                problems.append(
                    ("scale", f"{options.blocks} blocks of {options.scale[0]:g} of {where} hold none; raise it")
                )
            elif most >= rows * columns:
                problems.append(
                    ("scale", f"{options.blocks} blocks of {options.scale[1]:g} leave none of {where}; lower it")
                )
    return problems


@hookimpl
def dinomx_losses() -> Iterable[Loss]:
    yield Loss("ijepa", Ijepa, "dinomx_ijepa.loss:IjepaLoss", requests=requests, check=check)


@hookimpl
def dinomx_maskings() -> Iterable[Masking]:
    build = "dinomx_ijepa.masks:MultiBlockMasking"
    yield Masking("multi-block", MultiBlock, build, view=lambda options: options.view, check=check_masking)
