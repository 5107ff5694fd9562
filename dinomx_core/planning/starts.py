"""Whether what a run starts from is there and fits: another run, the stage before, sources of further networks."""

import os
from pathlib import Path

import attrs

from dinomx_core.declare.discover import Registry
from dinomx_core.declare.facts import (
    BackboneShape,
    Frozen,
)
from dinomx_core.errors import UNREADABLE, DataError
from dinomx_core.planning.origin import Origin, checkpoint_of, describe, misfits, source_shape
from dinomx_core.planning.plan import Plan
from dinomx_core.planning.report import Report
from dinomx_core.planning.spec import RunSpec


def origin_of(report: Report, before: Plan | None, registry: Registry) -> Origin | None:
    """What the run starts from where that is the stage before it or another run."""
    start = report.spec.run.start
    if before is not None:
        for key, ours, theirs in (
            ("run.start", start, before.spec.run.start),
            ("backbone.weights", weights_of(report.spec), weights_of(before.spec)),
        ):
            if ours != theirs:
                report.refuse(f'"{ours}", but a stage starts from the one before it; leave it out', key)
        return Origin(f'the stage "{before.stage}"', before.backbone, before.heads)
    if not start:
        return None
    try:
        place, notes = checkpoint_of(Path(os.path.expanduser(start)))
        report.warnings.extend(f"run.start: {note}" for note in notes)
        return describe(place, registry)
    except DataError as error:
        report.refuse(str(error), "run.start")
        return None


def check_origin(report: Report, before: Plan | None, origin: Origin, shape: BackboneShape | None) -> None:
    """Backbone and heads keep the sizes of what they take over."""
    if shape is None:
        return
    if shape.warm and before is None:
        report.refuse(
            f'starts from "{shape.warm}", and run.start names another start; leave one out', "backbone.weights"
        )
    known = {field.name for field in attrs.fields(type(report.spec.backbone.options))}
    for name, message in misfits(origin, shape):
        report.refuse(
            f"{message}; weights that are taken over keep their sizes",
            f"backbone.{name}" if name in known else "backbone",
        )
    for label, head in report.spec.heads.items():
        theirs, ours = origin.heads.get(label), head.component.shape(head.options, shape.width)
        if theirs and theirs.outputs != ours.outputs:
            report.refuse(
                f"{ours.outputs} prototypes, but {origin.place} has {theirs.outputs}; a head that is taken over keeps its sizes",
                f"head.{label}.prototypes",
            )
        elif theirs and theirs.parameters != ours.parameters:
            report.refuse(
                f"{ours.parameters} parameters, but {origin.place} has {theirs.parameters}; a head that is taken over keeps its "
                "sizes",
                f"head.{label}",
            )


def check_source(report: Report, registry: Registry, network: Frozen, shape: BackboneShape | None, key: str) -> None:
    """Whether a further network's source is there and fits."""
    try:
        theirs = source_shape(network.source, report.spec.backbone, shape, registry)
    except UNREADABLE as error:
        at = error.key if isinstance(error, DataError) and error.key != "weights" else ""
        report.refuse(f"{at}: {error}" if at else str(error), key)
        return
    for _, message in misfits(Origin(f'"{network.source}"', theirs, {}), shape) if shape else ():
        report.refuse(message, key)


def further_networks(
    report: Report, registry: Registry, shape: BackboneShape | None, origin: Origin | None
) -> dict[str, Frozen]:
    """Further networks by the label of the loss that asks for them. Refuses those that have nowhere to come from."""
    found: dict[str, Frozen] = {}
    for label, loss in report.spec.losses.items():
        for network in loss.component.networks(loss.options):
            key = f"loss.{label}.{network.key}" if network.key else f"loss.{label}"
            if network.name in ("student", "teacher"):
                report.refuse(f'asks for a further network called "{network.name}", which there is', key)
            if network.name in {other.name for other in found.values()}:
                report.refuse(
                    f'asks for a further network "{network.name}", as another loss does; give each a name', key
                )
            if network.source != "start":
                check_source(report, registry, network, shape, key)
            elif shape and not shape.warm and not origin:
                report.refuse(
                    f'the network "{network.name}" is the teacher as the run starts, and this run starts from random '
                    "weights; name a run, a checkpoint or a model folder, or start from weights (backbone.weights, run.start)",
                    key,
                )
            found[label] = network
    return found


def weights_of(spec: RunSpec) -> str:
    """What the backbone starts from, where it can."""
    return getattr(spec.backbone.options, "weights", "")
