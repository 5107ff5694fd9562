"""Declarations: what a plugin yields from its hooks. Frozen, torch-free, and enough for the plan to work everything out."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal

import attrs

from dinomx_core.declare.values import Length, Schedule, Size, as_size, not_negative, option, schedule_of

Select = Literal["cls", "patches", "masked", "all"]
HowMasked = Literal["none", "replace", "drop"]


@attrs.frozen
class Request:
    """One forward result that a loss needs. The core runs the union of all requests once and hands each result back by its request.

    network: "student", "teacher", or a `Frozen` network that the loss asks for.
    view:    which named set of crops goes in.
    masking: "none"; "replace" puts the mask token on masked patches; "drop" leaves masked patches out of the sequence.
    head:    label of the head to run on the selection; None hands the selection itself back.
    select:  "cls" rows, all "patches", "masked" patches only, or "all" (the whole `Tokens`).
    layers:  with no head and "all", the number of last blocks to return tokens of (1: `Tokens`; more: a tuple, last block last).
    """

    network: str
    view: str
    masking: HowMasked = "none"
    head: str | None = None
    select: Select = "cls"
    layers: int = 1


@attrs.frozen
class View:
    """A named set of `count` crops of `size` pixels (a side, or height and width); `masked` when patch masks come with it;
    `key`: the option that sets the size; `others`: sizes that some batches have in place of `size`, all of them smaller;
    `places`: the view whose crops lie at the same places, where it is another's."""

    name: str
    count: int
    size: Size = attrs.field(converter=as_size)
    masked: bool = False
    key: str = ""
    others: tuple[Size, ...] = ()
    places: str = ""


@attrs.frozen
class DataInfo:
    """What a data set holds, found without decoding it: images, channels, class names (empty where unlabelled).

    notes: what a person should know of it. digest: stands for which images these are, in which order, so that a run goes on
    with the same ones; "" where the options alone say it.
    """

    count: int
    channels: int
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    digest: str = ""


@attrs.frozen
class BackboneShape:
    """Sizes of a transformer backbone, for token counts, parameters and FLOPs, and what it starts from.

    prefix: tokens before the patches. masks: whether it has a mask token. warm: name of the weights it starts from, "" from
    scratch; statistics: mean and standard deviation that the pixels of those weights were normalised with, where known.
    """

    width: int
    depth: int
    heads: int
    mlp_width: int
    patch_size: int
    channels: int
    prefix: int
    parameters: int
    masks: bool = attrs.field(default=True, kw_only=True)
    warm: str = attrs.field(default="", kw_only=True)
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = attrs.field(default=None, kw_only=True)

    def tokens(self, size: int | Size) -> int:
        """Tokens of an image of `size` pixels."""
        height, width = as_size(size)
        return self.prefix + (height // self.patch_size) * (width // self.patch_size)

    def forward_flops(self, size: int | Size) -> float:
        """Floating-point operations (multiply and add counted apart) of one image's forward pass."""
        tokens = self.tokens(size)
        block = 2 * tokens * self.width * (4 * self.width + 2 * self.mlp_width) + 4 * tokens**2 * self.width
        embed = 2 * (tokens - self.prefix) * self.channels * self.patch_size**2 * self.width
        return self.depth * block + embed


@attrs.frozen
class HeadShape:
    """Sizes of a head: its outputs (prototypes, or features) and its parameters."""

    outputs: int
    parameters: int


@attrs.frozen
class Preprocessing:
    """How an image becomes the model's input when nothing is random: resized to cover a box of the crop's shape whose shorter side is
    `resize`, centre crop, normalise."""

    resize: int
    crop: Size = attrs.field(converter=as_size)
    mean: tuple[float, ...]
    std: tuple[float, ...]


@attrs.frozen
class Draft:
    """What the plan knows when it calls a declaration's `check`."""

    data: DataInfo
    views: tuple[View, ...]
    backbone: BackboneShape | None
    steps: int
    batch_size: int


# What is wrong with a component's options, each with the option it is about ("" for the whole table; "a.b" for a nested one).
Check = Callable[[Any, Draft], Iterable[tuple[str, str]]]


@attrs.frozen
class Component:
    """A named part that a config can pick. `build` is "module:attribute", imported only when the part is built."""

    kind: ClassVar[str]
    frame: ClassVar[type | None] = None
    name: str
    options: type
    build: str
    check: Check | None = attrs.field(default=None, kw_only=True)

    @property
    def summary(self) -> str:
        """The first line of the options class's docstring."""
        return (inspect.getdoc(self.options) or "").partition("\n")[0]


@attrs.frozen
class Backbone(Component):
    """A network from pixels to tokens. `shape(options, channels, image_size)` gives its sizes; it raises DataError, with the
    option at fault as its key, where the weights that the options name are no good.

    `from_weights(options, weights)` gives options of a backbone that starts from those weights, where it can.

    Built as `build(options, shape, image_size)` -> `training.contracts.Backbone`.
    """

    kind: ClassVar[str] = "backbone"
    shape: Callable[[Any, int, int], BackboneShape] = attrs.field(kw_only=True)
    from_weights: Callable[[Any, str], Any] | None = attrs.field(default=None, kw_only=True)


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


@attrs.frozen
class Frozen:
    """A further network of the student's shape that learns nothing, which a loss asks for and its requests name.

    source: "start" (the teacher as the run begins), or a run, checkpoint or model folder, given by the option `key`.
    refresh(done, lengths): whether it takes over the teacher's weights after `done` steps; `lengths` are the loss's own, in steps.
    """

    name: str
    source: str = "start"
    key: str = ""
    refresh: Callable[[int, Mapping[str, int]], bool] = attrs.field(
        default=lambda done, lengths: False, eq=False, repr=False
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
    """Makes views of an image. `views(options)` lists them, `preprocessing(options)` says how an image goes in unaugmented.

    Built as `build(options, channels)` -> `training.contracts.Augmentation`.
    """

    kind: ClassVar[str] = "augmentation"
    views: Callable[[Any], Iterable[View]] = attrs.field(kw_only=True)
    preprocessing: Callable[[Any], Preprocessing] = attrs.field(kw_only=True)


@attrs.frozen
class Strategy(Component):
    """Changes what is trained or learnt from. Built as `build(options)` -> `training.contracts.Strategy`."""

    kind: ClassVar[str] = "strategy"


@attrs.frozen
class Parallelism(Component):
    """Owns processes and what crosses them. `processes(options)` is the world size. Built as `build(options, device)`."""

    kind: ClassVar[str] = "parallelism"
    processes: Callable[[Any], int] = attrs.field(kw_only=True)


@attrs.frozen
class Dataset(Component):
    """A source of images. `inspect(options)` counts it without torch. Built as `build(options)` -> `training.contracts.Dataset`."""

    kind: ClassVar[str] = "dataset"
    inspect: Callable[[Any], DataInfo] = attrs.field(kw_only=True)


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
class Recipe:
    """A named TOML that a config can start from: `path` is "package:folder/file.toml"."""

    kind: ClassVar[str] = "recipe"
    name: str
    path: str
    summary: str


Declared = Component | Recipe
KINDS: tuple[type, ...] = (
    Backbone,
    Head,
    Target,
    Loss,
    Augmentation,
    Masking,
    Strategy,
    Parallelism,
    Dataset,
    Evaluator,
    Recipe,
)
