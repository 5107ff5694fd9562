"""What declarations tell the plan, and the plan tells them: requests, views, sizes of data, backbones and heads. Frozen, torch-free."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, get_args

import attrs
from attrs.validators import ge, in_, instance_of, optional

from dinomx_core.declare.layout import Layout
from dinomx_core.declare.reading import Sampled
from dinomx_core.declare.values import Size, as_size

Select = Literal["cls", "patches", "masked", "all"]
HowMasked = Literal["none", "replace", "drop"]
LabelKind = Literal["class", "classes", "number"]


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

    network: str = attrs.field(validator=instance_of(str))
    view: str = attrs.field(validator=instance_of(str))
    masking: HowMasked = attrs.field(default="none", validator=in_(get_args(HowMasked)))
    head: str | None = attrs.field(default=None, validator=optional(instance_of(str)))
    select: Select = attrs.field(default="cls", validator=in_(get_args(Select)))
    layers: int = attrs.field(default=1, validator=[instance_of(int), ge(1)])


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
class Part:
    """A part of a data set that is drawn from with a weight of its own: the next `count` images, which of the data set's channels
    these have (their numbers), the option that names the part, and what some of its pixels are like."""

    count: int
    weight: float
    channels: tuple[int, ...]
    key: str = ""
    sampled: Sampled | None = None


@attrs.frozen
class DataInfo:
    """What a data set holds, found without decoding all of it: images, channels, class names (empty where unlabelled).

    notes: what a person should know of it. digest: stands for which images these are, in which order, so that a run goes on
    with the same ones; "" where the options alone say it. unreadable: files that are left out, and why. sampled: what the pixels of some
    images are like; None: uint8, or uint16 or floats over the whole range. names: of the channels, where they have any. parts: in which it
    is drawn from, where there are several. regions: whether images may say what lies where in them; boxes_alone: by boxes, never by
    masks. marked: names of the classes that boxes have. label_kind: what an image's label is: one of the classes, several of them or
    none, or a number, where `classes` is empty.
    """

    count: int
    channels: int
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    digest: str = ""
    unreadable: tuple[str, ...] = attrs.field(default=(), kw_only=True)
    sampled: Sampled | None = attrs.field(default=None, kw_only=True)
    names: tuple[str, ...] = attrs.field(default=(), kw_only=True)
    parts: tuple[Part, ...] = attrs.field(default=(), kw_only=True)
    regions: bool = attrs.field(default=False, kw_only=True)
    boxes_alone: bool = attrs.field(default=False, kw_only=True)
    marked: tuple[str, ...] = attrs.field(default=(), kw_only=True)
    label_kind: LabelKind = attrs.field(default="class", kw_only=True)

    @property
    def labelled(self) -> bool:
        """Whether images have labels."""
        return bool(self.classes) or self.label_kind == "number"

    @property
    def sets(self) -> tuple[tuple[int, ...], ...]:
        """The different sets of channels that images have."""
        return tuple(dict.fromkeys(part.channels for part in self.parts))

    def samples(self, key: str) -> dict[str, Sampled | None]:
        """What some pixels are like, of each part by the option that names it; `key` is the data set's own."""
        return {f"{key}.{part.key}": part.sampled for part in self.parts} or {key: self.sampled}


@attrs.frozen
class HeadShape:
    """Sizes of a head: its outputs (prototypes, or features) and its parameters."""

    outputs: int
    parameters: int


@attrs.frozen
class Convolutions:
    """What a pixel costs a backbone of convolutions: FLOPs of a forward pass, and floats kept for the backward pass."""

    flops: float
    kept: float


@attrs.frozen
class BackboneShape:
    """Sizes of a transformer backbone, for token counts, parameters and FLOPs, and what it starts from.

    prefix: tokens before the patches. masks: whether it has a mask token; drops: whether masked patches can leave the sequence. warm:
    name of the weights it starts from, "" from scratch; statistics: mean and standard deviation that the pixels of those weights were
    normalised with, where known. layout and tensors: where its parts are, and names and shapes of all its parameters; a backbone that
    does not tell cannot be planned with strategies that change what trains. beside: heads that come with the weights it starts from, by
    label. convolutions: its costs, where it is no transformer. any_channels: takes images of some of its channels, too; channel_tokens:
    has tokens of its own for each channel's patches.
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
    drops: bool = attrs.field(default=True, kw_only=True)
    warm: str = attrs.field(default="", kw_only=True)
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = attrs.field(default=None, kw_only=True)
    layout: Layout | None = attrs.field(default=None, kw_only=True, repr=False)
    tensors: Mapping[str, tuple[int, ...]] = attrs.field(factory=dict, kw_only=True, repr=False)
    beside: Mapping[str, HeadShape] = attrs.field(factory=dict, kw_only=True, repr=False)
    convolutions: Convolutions | None = attrs.field(default=None, kw_only=True)
    any_channels: bool = attrs.field(default=False, kw_only=True)
    channel_tokens: bool = attrs.field(default=False, kw_only=True)

    def tokens(self, size: int | Size) -> int:
        """Tokens of an image of `size` pixels and all channels."""
        height, width = as_size(size)
        patches = (height // self.patch_size) * (width // self.patch_size)
        return self.prefix + patches * (self.channels if self.channel_tokens else 1)

    def forward_flops(self, size: int | Size) -> float:
        """Floating-point operations (multiply and add counted apart) of one image's forward pass."""
        if self.convolutions:
            height, width = as_size(size)
            return self.convolutions.flops * height * width
        tokens = self.tokens(size)
        block = 2 * tokens * self.width * (4 * self.width + 2 * self.mlp_width) + 4 * tokens**2 * self.width
        together = 1 if self.channel_tokens else self.channels
        embed = 2 * (tokens - self.prefix) * together * self.patch_size**2 * self.width
        return self.depth * block + embed


@attrs.frozen
class Preprocessing:
    """How an image becomes the model's input when nothing is random: resized to cover a box of the crop's shape whose shorter side is
    `resize`, centre crop, normalise."""

    resize: int
    crop: Size = attrs.field(converter=as_size)
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def fitted(self, height: int, width: int) -> tuple[Size, int, int]:
        """What an image of so many pixels is resized to, and the crop's top and left in that."""
        (high, wide) = self.crop
        scale = max(high / height, wide / width) * self.resize / min(self.crop)
        size = Size(max(high, round(height * scale)), max(wide, round(width * scale)))
        return size, (size.height - high) // 2, (size.width - wide) // 2

    def seen(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Top, left, height and width of what the crop shows, in pixels of an image of so many."""
        size, top, left = self.fitted(height, width)
        down, across = height / size.height, width / size.width
        return top * down, left * across, self.crop.height * down, self.crop.width * across


@attrs.frozen
class Draft:
    """What the plan knows when it calls a declaration's `check`."""

    data: DataInfo
    views: tuple[View, ...]
    backbone: BackboneShape | None
    steps: int
    batch_size: int
    device: str = "cpu"


@attrs.frozen
class Parameters:
    """A backbone's parameters by name, and which of them train: what strategies change one after another as the plan is made.

    frozen: never train, so student and teacher share them. later: train from a later step on. added: were put in by a strategy.
    """

    layout: Layout
    depth: int
    shapes: Mapping[str, tuple[int, ...]]
    frozen: frozenset[str] = frozenset()
    later: frozenset[str] = frozenset()
    added: frozenset[str] = frozenset()

    @property
    def training(self) -> frozenset[str]:
        """Names of those that train from the first step on."""
        return frozenset(self.shapes) - self.frozen - self.later

    def count(self, names: Iterable[str]) -> int:
        """How many numbers they hold."""
        return sum(math.prod(self.shapes[name]) for name in names)

    def layer_of(self, name: str) -> int:
        """0 before the blocks, i + 1 block i, depth + 1 after them."""
        return self.layout.layer_of(name, self.depth)

    @property
    def prefix(self) -> int:
        """Leading parts that never train: the embeddings, and so many blocks less one after them; 0 where they train."""
        moving = (self.layer_of(name) for name in self.shapes if name not in self.frozen)
        return min(moving, default=self.depth + 1)


@attrs.frozen
class Frozen:
    """A further network that learns nothing, which a loss or a strategy asks for and requests name.

    name: for requests; one called "teacher" takes the place of the moving average as what is learnt from. source: "start" (the
    teacher as the run begins), or a run, checkpoint or model, given by the option `key`. foreign: may be of any other
    shape than the student. heads: comes with the heads that requests name, all of them.
    refresh(done, lengths): whether it takes over the teacher's weights after `done` steps; `lengths` are the loss's own, in steps.
    """

    name: str
    source: str = "start"
    key: str = ""
    refresh: Callable[[int, Mapping[str, int]], bool] = attrs.field(
        default=lambda done, lengths: False, eq=False, repr=False
    )
    foreign: bool = attrs.field(default=False, kw_only=True)
    heads: bool = attrs.field(default=False, kw_only=True)
