"""Declarations: what a plugin yields from its hooks. Frozen, torch-free, and enough for the plan to work everything out."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import attrs

from dinomx_core.declare.commands import Command
from dinomx_core.declare.facts import (
    BackboneShape,
    DataInfo,
    Draft,
    Frozen,
    HeadShape,
    Parameters,
    Preprocessing,
    Request,
    View,
)
from dinomx_core.declare.processes import Divide, undivided
from dinomx_core.declare.reading import Index
from dinomx_core.declare.values import Length, Schedule, not_negative, option, schedule_of

# What is wrong with a component's options, each with the option it is about ("" for the whole table; "a.b" for a nested one).
Check = Callable[[Any, Draft], Iterable[tuple[str, str]]]


@attrs.frozen
class Component:
    """A named part that a config can pick. `build` is "module:attribute", imported only when the part is built. `deprecated`: what
    to use instead, where it will go. `package`: the distribution that declares it, put in when it is found; "" for the core's."""

    kind: ClassVar[str]
    frame: ClassVar[type | None] = None
    name: str
    options: type
    build: str
    check: Check | None = attrs.field(default=None, kw_only=True)
    deprecated: str = attrs.field(default="", kw_only=True, repr=False)
    package: str = attrs.field(default="", kw_only=True, repr=False)

    @property
    def summary(self) -> str:
        """The first line of the options class's docstring."""
        return (inspect.getdoc(self.options) or "").partition("\n")[0]


@attrs.frozen
class Backbone(Component):
    """A network from pixels to tokens. `shape(options, channels, image_size)` gives its sizes; it raises DataError, with the
    option at fault as its key, where the weights that the options name are no good: OtherFamily where another kind of backbone may read
    them, OtherChannels where data of other channels may be shown to them.

    `from_weights(options, weights)` gives options of a backbone that starts from those weights, where it can; `general`: its default
    options do, for weights of every family that it knows. `any_channels`: takes images of some of the data's channels, too.

    Built as `build(options, shape, image_size)` -> `training.backbone.Backbone`.
    """

    kind: ClassVar[str] = "backbone"
    shape: Callable[[Any, int, int], BackboneShape] = attrs.field(kw_only=True)
    from_weights: Callable[[Any, str], Any] | None = attrs.field(default=None, kw_only=True)
    general: bool = attrs.field(default=False, kw_only=True)
    any_channels: bool = attrs.field(default=False, kw_only=True)


@attrs.frozen
class Head(Component):
    """A network on tokens. `shape(options, width)` gives its sizes. Built as `build(options, width)` -> `torch.nn.Module`."""

    kind: ClassVar[str] = "head"
    shape: Callable[[Any, int], HeadShape] = attrs.field(kw_only=True)


@attrs.frozen
class Target(Component):
    """Turns teacher logits into probabilities. Built as `build(options, outputs, parallelism)` -> `training.contracts.Target`."""

    kind: ClassVar[str] = "target"


@attrs.frozen
class LossFrame:
    """Options that every loss has."""

    weight: Schedule = option(
        Schedule.constant(1.0), "factor of this loss in the total", check=schedule_of(not_negative)
    )


def no_networks(options: Any) -> Iterable[Frozen]:
    """What most losses ask for beside student and teacher."""
    return ()


@attrs.frozen
class Loss(Component):
    """A training objective. `requests(options)` lists the forward results it needs; heads are those that the requests name.
    `networks(options)` lists further networks that the requests name.

    Built as `build(options, context)` with a `training.contracts.LossContext` -> `training.contracts.Loss`.
    """

    kind: ClassVar[str] = "loss"
    frame: ClassVar[type | None] = LossFrame
    requests: Callable[[Any], Iterable[Request]] = attrs.field(kw_only=True)
    networks: Callable[[Any], Iterable[Frozen]] = attrs.field(default=no_networks, kw_only=True)


@attrs.frozen
class Masking(Component):
    """Says which patches are masked, for any augmentation's crops. `view(options)` is the view that it masks.

    Built as `build(options)` -> `training.contracts.Masking`.
    """

    kind: ClassVar[str] = "masking"
    view: Callable[[Any], str] = attrs.field(kw_only=True)


@attrs.frozen
class Augmentation(Component):
    """Makes views of an image. `views(options)` lists them, `preprocessing(options)` says how an image goes in unaugmented;
    `any_numbers(options)`: whether it takes floats outside 0..1, too.

    Built as `build(options, channels)` -> `training.contracts.Augmentation`.
    """

    kind: ClassVar[str] = "augmentation"
    views: Callable[[Any], Iterable[View]] = attrs.field(kw_only=True)
    preprocessing: Callable[[Any], Preprocessing] = attrs.field(kw_only=True)
    any_numbers: Callable[[Any], bool] = attrs.field(default=lambda options: False, kw_only=True)


@attrs.frozen
class Placement(Component):
    """Says where crops lie, whichever augmentation changes their pixels. `attends`: by the teacher's attention, which comes as an item's
    regions; its options then have `every`, how often the teacher is asked, and `after`, the step until which it is not (both `Length`).

    Built as `build(options)` -> `training.contracts.Placement`.
    """

    kind: ClassVar[str] = "placement"
    attends: bool = attrs.field(default=False, kw_only=True)


@attrs.frozen
class Strategy(Component):
    """Changes what is trained or learnt from. `adapt(options, parameters)` says what it makes of the backbone's parameters, and raises
    DataError, with the option at fault as its key, where that means nothing; `networks(options)` lists networks that it brings.

    Built as `build(options)` -> `training.contracts.Strategy`.
    """

    kind: ClassVar[str] = "strategy"
    adapt: Callable[[Any, Parameters], Parameters] | None = attrs.field(default=None, kw_only=True)
    networks: Callable[[Any], Iterable[Frozen]] = attrs.field(default=no_networks, kw_only=True)


@attrs.frozen
class Parallelism(Component):
    """Owns processes and what crosses them: several, where the options derive from `Processes`. `divide(options, load)` says what each
    holds and sends. Built as `build(options, device)` -> `training.contracts.Parallelism`."""

    kind: ClassVar[str] = "parallelism"
    divide: Divide = attrs.field(default=undivided, kw_only=True)


@attrs.frozen
class Dataset(Component):
    """A source of images. `inspect(options)` counts it without torch. Built as `build(options)` -> `training.contracts.Dataset`."""

    kind: ClassVar[str] = "dataset"
    inspect: Callable[[Any], DataInfo] = attrs.field(kw_only=True)


@attrs.frozen
class Reader(Component):
    """Decodes image files. `suffixes`: endings of its files' names, in lower case; () where names say nothing. `index(options, files)`
    says what planes files hold, with what cannot be read left out and told; None: one plane each, and nothing is looked up. `folders`:
    a "file" is a folder of that name. `streams`: reads opened files, too, not only paths. `colour`: of common
    pictures, among which grey ones become colour unless a data set's options say otherwise.

    Built as `build(options)` -> `declare.reading.PlaneReader`, without torch.
    """

    kind: ClassVar[str] = "reader"
    suffixes: tuple[str, ...] = attrs.field(kw_only=True)
    index: Callable[[Any, Sequence[Path]], Index] | None = attrs.field(default=None, kw_only=True)
    folders: bool = attrs.field(default=False, kw_only=True)
    streams: bool = attrs.field(default=True, kw_only=True)
    colour: bool = attrs.field(default=False, kw_only=True)


def as_many(options: Any, channels: int) -> int:
    """What most intensities make of an image's channels: as many."""
    return channels


@attrs.frozen
class Intensity(Component):
    """Says what the numbers of an image mean: pixels of any range become uint8 or uint16 over the type's range, or float32.
    `channels(options, channels)`: how many it makes of so many. `bounded(options)`: whether floats it gives lie within 0..1.

    Built as `build(options)` -> `training.contracts.Intensity`.
    """

    kind: ClassVar[str] = "intensity"
    channels: Callable[[Any, int], int] = attrs.field(default=as_many, kw_only=True)
    bounded: Callable[[Any], bool] = attrs.field(default=lambda options: True, kw_only=True)


def more_than_none(instance: Any, attribute: Any, value: Length) -> None:
    """attrs validator: a length above none."""
    if value.amount <= 0:
        raise ValueError(f'must be more than none, got "{value}"')


@attrs.frozen
class EvaluatorFrame:
    """Options that every evaluator has."""

    every: Length = option(
        Length(10, "%"), "how often during the run; the start and the end are always evaluated", check=more_than_none
    )


@attrs.frozen
class Evaluator(Component):
    """Measures the teacher. Built as `build(options)` -> `training.contracts.Evaluator`."""

    kind: ClassVar[str] = "evaluator"
    frame: ClassVar[type | None] = EvaluatorFrame


@attrs.frozen
class TrackerFrame:
    """Options that every tracker has."""

    every: Length = option(Length(0.1, "%"), "stretch between two steps that it is told of", check=more_than_none)


@attrs.frozen
class Tracker(Component):
    """Tells another tool what a run does. Built as `build(options, run)` with a `declare.tracking.TrackedRun` ->
    `declare.tracking.Tracker`, in the first process alone."""

    kind: ClassVar[str] = "tracker"
    frame: ClassVar[type | None] = TrackerFrame


@attrs.frozen
class Recipe:
    """A named TOML that a config can start from: `path` is "package:folder/file.toml"."""

    kind: ClassVar[str] = "recipe"
    name: str
    path: str
    summary: str


Declared = Component | Recipe | Command
KINDS: tuple[type, ...] = (
    Backbone,
    Head,
    Target,
    Loss,
    Augmentation,
    Placement,
    Masking,
    Strategy,
    Parallelism,
    Dataset,
    Reader,
    Intensity,
    Evaluator,
    Tracker,
    Recipe,
    Command,
)
