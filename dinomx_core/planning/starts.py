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
from dinomx_core.planning.origin import Origin, checkpoint_of, describe, misfits, source_of
from dinomx_core.planning.plan import Further, Plan
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
        strategies = tuple(chosen for chosen in before.spec.strategies.values() if chosen.component.adapt)
        return Origin(
            f'the stage "{before.stage}"', before.backbone, before.heads, before.spec.backbone, strategies,
            before.data.channels, max(before.preprocessing.crop),
        )  # fmt: skip
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


def check_source(
    report: Report, registry: Registry, network: Frozen, shape: BackboneShape | None, size: int, key: str
) -> Origin | None:
    """Where a further network comes from; refuses what is not there or does not fit."""
    channels = shape.channels if shape else 3
    try:
        origin = source_of(network, report.spec.backbone, channels, size, registry)
    except UNREADABLE as error:
        at = error.key if isinstance(error, DataError) and error.key not in ("weights", "start") else ""
        report.refuse(f"{at}: {error}" if at else str(error), key)
        return None
    if network.foreign:
        theirs = origin.backbone
        if shape and channels not in (1, theirs.channels):
            report.refuse(
                f"takes {theirs.channels} channels, the images have {channels}; read the data with as many, or take a model that was "
                "made for them",
                key,
            )
        if any(len(values) not in (1, theirs.channels) for values in theirs.statistics or ()):
            counts = "/".join(str(len(values)) for values in theirs.statistics or ())
            report.refuse(
                f"its preprocessor_config.json gives {counts} means and deviations for {theirs.channels} channels; mend it",
                key,
            )
        if theirs.statistics is None:
            report.warnings.append(
                f"{key}: does not tell how its pixels were normalised; it is shown them as the student is"
            )
    elif shape:
        for _, message in misfits(attrs.evolve(origin, place=f'"{network.source}"'), shape):
            report.refuse(message, key)
    return origin


def check_heads_beside(report: Report, further: Further, key: str) -> None:
    """A network that comes with heads has every one that a loss runs it through, with as many prototypes."""
    assert further.origin
    labels = {
        request.head: label
        for label, loss in report.spec.losses.items()
        for request in loss.component.requests(loss.options)
        if request.network == further.network.name and request.head
    }
    for head, label in labels.items():
        chosen, theirs = report.spec.heads[head], further.origin.heads.get(head)
        ours = chosen.component.shape(chosen.options, further.origin.backbone.width)
        if theirs is None:
            there = ", ".join(further.origin.heads) or "none"
            report.refuse(
                f'has no head "{head}", which loss.{label} needs (its heads: {there}); learn from features where a model has '
                "no heads",
                key,
            )
        elif theirs.outputs != ours.outputs:
            report.refuse(
                f"{ours.outputs} prototypes, but {further.origin.place} has {theirs.outputs}", f"head.{head}.prototypes"
            )
        elif theirs.parameters != ours.parameters:
            report.refuse(
                f"{ours.parameters} parameters at a width of {further.origin.backbone.width}, but that of {further.origin.place} has "
                f"{theirs.parameters}; give it the same layers",
                f"head.{head}",
            )


def further_networks(
    report: Report, registry: Registry, shape: BackboneShape | None, origin: Origin | None, size: int
) -> tuple[Further, ...]:
    """The networks that losses and strategies ask for. Refuses those that have nowhere to come from."""
    found: dict[str, Further] = {}
    owners = [(f"loss.{label}", loss) for label, loss in report.spec.losses.items()]
    owners += [(f"strategy.{label}", strategy) for label, strategy in report.spec.strategies.items()]
    for owner, chosen in owners:
        for network in chosen.component.networks(chosen.options):
            key = f"{owner}.{network.key}" if network.key else owner
            if network.name == "student" or (network.name == "teacher" and chosen.component.kind == "loss"):
                report.refuse(f'asks for a further network called "{network.name}", which there is', key)
            if network.name in found and found[network.name].network == network:
                continue  # both learn from the same one
            if network.name in found:
                other = found[network.name].owner
                report.refuse(
                    f'asks for a further network "{network.name}", as {other} does; '
                    + ("a run learns from one teacher" if network.name == "teacher" else "give each a name"),
                    key,
                )
            theirs = None
            if network.source != "start":
                theirs = check_source(report, registry, network, shape, size, key)
            elif shape and not shape.warm and not origin:
                report.refuse(
                    f'the network "{network.name}" is the teacher as the run starts, and this run starts from random '
                    "weights; name a run, a checkpoint or a model folder, or start from weights (backbone.weights, run.start)",
                    key,
                )
            found[network.name] = Further(owner, network, theirs)
            if theirs and network.heads:
                check_heads_beside(report, found[network.name], key)
    return tuple(found.values())


def weights_of(spec: RunSpec) -> str:
    """What the backbone starts from, where it can."""
    return getattr(spec.backbone.options, "weights", "")
