"""Whether what the augmentation makes is what the losses ask for."""

import math
import sys

import attrs

from dinomx_core.declare.facts import (
    BackboneShape,
    View,
)
from dinomx_core.planning.plan import Further
from dinomx_core.planning.report import Report
from dinomx_core.planning.walk import chosen_parts


def check_views(report: Report, views: tuple[View, ...], shape: BackboneShape | None) -> None:
    """Crops fit the patch; every request finds its network, its view and its masks."""
    patch, depth = (shape.patch_size, shape.depth) if shape else (1, sys.maxsize)
    for view in views:
        for size in (view.size, *view.others):
            if side := next((side for side in size if side % patch), 0):
                below, above = side // patch * patch, (side // patch + 1) * patch
                near = f"{below} or {above}" if below else f"{above}"
                message = f"{view.name} crops of {size} px are not a multiple of the patch ({patch} px); use {near}"
                report.refuse(message, f"augmentation.{view.key}" if view.key else "augmentation")
    names = {view.name for view in views if view.count > 0}
    masked = {view.name for view in views if view.masked}
    askers = (*report.spec.losses.values(), *report.spec.strategies.values())
    foreign = {n.name for asker in askers for n in asker.component.networks(asker.options) if n.foreign}
    for label, loss in report.spec.losses.items():
        own = {network.name for network in loss.component.networks(loss.options)}
        for request in loss.component.requests(loss.options):
            if request.network not in ("student", "teacher", *own):
                report.refuse(
                    f'asks for the network "{request.network}", which it does not declare; there are student and teacher',
                    f"loss.{label}",
                )
            if request.layers > depth and request.network not in foreign:
                report.refuse(
                    f"asks for the last {request.layers} blocks of a backbone that has {depth}", f"loss.{label}"
                )
            if request.layers > 1 and request.network not in foreign and shape and shape.convolutions:
                report.refuse("asks for several blocks of a backbone whose blocks differ in width", f"loss.{label}")
        missing = {r.view for r in loss.component.requests(loss.options)} - names
        if missing:
            made = ", ".join(sorted(names)) or "none"
            what = ", ".join(sorted(missing))
            report.refuse(
                f'needs the view "{what}", which the augmentation does not make (it makes: {made})', f"loss.{label}"
            )
        for request in loss.component.requests(loss.options):
            if request.masking == "replace" and shape and not shape.masks:
                parts = chosen_parts({"backbone": report.spec.backbone})  # the backbone, and one inside of it
                able = [".".join(path) for path, part in parts if hasattr(part.options, "mask_token")]
                key = f"{able[0]}.mask_token" if able else "backbone.name"
                remedy = "take another backbone, or a loss that needs none"
                if able:
                    remedy = f"set {key} = true"
                elif hasattr(loss.options, "masked"):
                    remedy = f"set loss.{label}.masked = false, or take another backbone"
                report.refuse(f"has no mask token, which loss.{label} needs; {remedy}", key)
            if request.masking == "drop" and shape and not shape.drops:
                report.refuse(
                    f"cannot leave masked patches out of the sequence, which loss.{label} wants; take another backbone",
                    "backbone.name",
                )
            if (request.masking != "none" or request.select == "masked") and request.view in names - masked:
                remedy = f"add [masking] with a name ({', '.join(report.maskings) or 'none installed'})"
                if report.spec.masking:
                    remedy = f'[masking] masks "{", ".join(sorted(masked)) or "nothing"}"; a config masks one view'
                report.refuse(
                    f'needs patch masks of the view "{request.view}", which nobody makes; {remedy}', f"loss.{label}"
                )
    check_student(report)
    warn_of_views(report, names, masked)


def check_student(report: Report) -> None:
    """Some loss asks for something of the student, which would learn nothing otherwise."""
    losses = report.spec.losses
    if losses and not any(
        request.network == "student" for loss in losses.values() for request in loss.component.requests(loss.options)
    ):
        which = f"loss.{next(iter(losses))}" if len(losses) == 1 else "loss"
        report.refuse("asks for nothing of the student, so nothing would be learnt; add a loss that does", which)


def check_networks(
    report: Report, views: tuple[View, ...], shape: BackboneShape | None, networks: tuple[Further, ...]
) -> None:
    """A network of another shape has whole patches of every view that it is shown, and the student's where masks name patches."""
    sizes = {view.name: (view.size, *view.others) for view in views}
    for further in (f for f in networks if f.origin and f.network.foreign):
        theirs = further.origin.backbone if further.origin else None
        key = f"{further.owner}.{further.network.key}" if further.network.key else further.owner
        asked = [
            (label, request)
            for label, loss in report.spec.losses.items()
            for request in loss.component.requests(loss.options)
            if request.network == further.network.name
        ]
        if not asked:
            report.refuse(
                f'brings the network "{further.network.name}", which no loss asks for; leave it out', further.owner
            )
        if further.network.heads and any(
            request.network == "student" and request.masking != "none"
            for loss in report.spec.losses.values()
            for request in loss.component.requests(loss.options)
        ):
            report.warnings.append(
                f"{key}: the student sees masked crops; whole ones are usual here (masked = false in the losses)"
            )
        if theirs is None or shape is None:
            continue
        for label, request in asked:
            masks = request.masking != "none" or request.select == "masked"
            for size in sizes.get(request.view, ()):
                if any(side % theirs.patch_size for side in size):
                    report.refuse(
                        f"its patches of {theirs.patch_size} px do not fill the {request.view} crops of {size} px, so its grid cannot "
                        f"be aligned with the student's; use crops that are multiples of {math.lcm(theirs.patch_size, shape.patch_size)}",
                        key,
                    )
                elif masks and theirs.patch_size != shape.patch_size:
                    report.refuse(
                        f"its patches are of {theirs.patch_size} px, the student's of {shape.patch_size} px, and loss.{label} compares "
                        "masked patches one by one; take a teacher of the same patch, or a loss without masks",
                        key,
                    )
            if request.layers > theirs.depth:
                report.refuse(
                    f"loss.{label} asks for the last {request.layers} blocks of it, and it has {theirs.depth}", key
                )


def warn_of_views(report: Report, names: set[str], masked: set[str]) -> None:
    """Views that are made for nothing, or go through the student twice."""
    for name in sorted(
        names - {r.view for loss in report.spec.losses.values() for r in loss.component.requests(loss.options)}
    ):
        report.warnings.append(f'augmentation: makes the view "{name}", which no loss asks for')
    for name in sorted(masked):
        asked = {
            (r.masking, label)
            for label, loss in report.spec.losses.items()
            for r in loss.component.requests(loss.options)
            if (r.network, r.view) == ("student", name)
        }
        if len({how for how, _ in asked}) > 1:
            who = ", ".join(sorted(f'loss.{label} ("{how}")' for how, label in asked))
            report.warnings.append(
                f'masking: the student sees the view "{name}" masked and unmasked, a forward pass each: {who}'
            )


def mask(report: Report, views: tuple[View, ...]) -> tuple[View, ...]:
    """The views with the one masked that [masking] says."""
    chosen = report.spec.masking
    if chosen is None:
        return views
    name = chosen.component.view(chosen.options)
    if name not in {view.name for view in views}:
        made = ", ".join(view.name for view in views)
        report.refuse(f'masks the view "{name}", which the augmentation does not make (it makes: {made})', "masking")
    return tuple(attrs.evolve(view, masked=True) if view.name == name else view for view in views)
