"""What trains: the backbone's parameters as the strategies leave them, one after another."""

import attrs

from dinomx_core.declare.facts import BackboneShape, Parameters
from dinomx_core.errors import DataError
from dinomx_core.planning.report import Report


@attrs.frozen
class Trains:
    """Figures of a backbone's parameters once the strategies have adapted it.

    trainable: those that ever train, `later` of them from a later step on; shared: never train, so student and teacher have them in
    common; prefix: leading parts without gradients (the embeddings and so many blocks less one).
    """

    total: int
    trainable: int
    later: int
    shared: int
    prefix: int

    @property
    def share(self) -> float:
        """Trainable ones of all."""
        return self.trainable / max(1, self.total)


def trains_of(report: Report, shape: BackboneShape) -> Trains:
    """Apply every strategy to the parameters. Refuses those that mean nothing where they stand."""
    adapting = {label: chosen for label, chosen in report.spec.strategies.items() if chosen.component.adapt}
    if shape.layout is None:
        if adapting:
            report.warnings.append(
                f'strategy: the backbone "{report.spec.backbone.component.name}" does not tell its parameters, so what trains is '
                "known only once it is built"
            )
        return Trains(shape.parameters, shape.parameters, 0, 0, 0)
    parameters = Parameters(shape.layout, shape.depth, shape.tensors)
    for label, chosen in adapting.items():
        assert chosen.component.adapt
        try:
            changed = chosen.component.adapt(chosen.options, parameters)
        except DataError as error:
            report.refuse(str(error), f"strategy.{label}.{error.key}" if error.key else f"strategy.{label}")
            continue
        if changed == parameters:
            report.refuse("changes nothing of what trains; leave it out", f"strategy.{label}")
        elif not changed.training and not changed.later:
            report.refuse("leaves nothing of the backbone that trains; freeze less", f"strategy.{label}")
        parameters = changed
    moving = frozenset(parameters.shapes) - parameters.frozen
    total, trainable = parameters.count(parameters.shapes), parameters.count(moving)
    return Trains(total, trainable, parameters.count(parameters.later), total - trainable, parameters.prefix)
