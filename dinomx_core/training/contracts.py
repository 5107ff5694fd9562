"""The interfaces between the core and plugins. Shapes: B images, V crops a view, C channels, N patches, T tokens, D width, K outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dinomx_core.declare.facts import (
    BackboneShape,
    HeadShape,
    Preprocessing,
    Request,
)
from dinomx_core.errors import DataError
from dinomx_core.training.backbone import Backbone
from dinomx_core.training.flow import Crop, Item, Tokens, Views
from dinomx_core.training.streams import Stream

if TYPE_CHECKING:
    from dinomx_core.training.network import Network, Objective

Outputs = Mapping[Request, Any]
Scheduled = Mapping[str, float]


class Dataset(ABC):
    """Images by number. Reading is stateless, so that any worker may read any image."""

    @abstractmethod
    def __len__(self) -> int:
        """How many images there are: as many as the declaration's `inspect` counts."""

    @abstractmethod
    def __getitem__(self, index: int) -> Item:
        """An image from 0 on, the same at every call. Raises DataError, naming it, where it cannot be read."""

    def name(self, index: int) -> str | None:
        """Its id; None where that is not known without reading the image."""
        return None


class Intensity(ABC):
    """Says what the numbers of an image mean."""

    @abstractmethod
    def __call__(self, item: Item) -> Item:
        """The item with pixels that are uint8 or uint16 over the type's range, or float32. Raises DataError where its numbers mean
        nothing to it."""

    def of(self, item: Item) -> Item:
        """The same; an error names the item."""
        try:
            return self(item)
        except DataError as error:
            raise DataError(f"{item.id}: {error}" if item.id else str(error)) from None


class Augmentation(ABC):
    """Makes views. Every random number comes from the stream it is given."""

    @abstractmethod
    def __call__(self, item: Item, stream: Stream) -> dict[str, list[Crop]]:
        """The crops of one image, by view."""


Box = tuple[int, int, int, int]  # top, left, height, width in pixels of the image


class Placement(ABC):
    """Where crops lie. Size and aspect have been drawn before; what is drawn here comes from purposes of its own."""

    @abstractmethod
    def __call__(self, item: Item, view: str, number: int, box: Box, stream: Stream) -> tuple[Box, str]:
        """Where a view's crop of a number, drawn as `box`, is to lie, within the image; and in a word how that came about, which
        is counted in the metrics as the share of such crops ("": it lies as it was drawn); a word that begins with "without" is told
        once, too. `stream` is the sample's."""


class Masking(ABC):
    """Which patches of a view's crops are masked. What is drawn over a whole step is drawn once for it, the same on every rank;
    where the patches lie is drawn with each crop."""

    @abstractmethod
    def counts(self, crops: int, patches: int, rng: Random) -> Sequence[int]:
        """How many of its `patches` to mask in each of the `crops` of a step, over all ranks; 0 for a crop that is not masked."""

    @abstractmethod
    def mask(self, count: int, grid: tuple[int, int], rng: Random) -> Tensor:
        """A mask (rows * columns,) bool of about `count` patches, True where masked."""


class Target(nn.Module, ABC):
    """Teacher logits to probabilities. What it keeps is a buffer, so it is saved with the run."""

    @abstractmethod
    def forward(self, logits: Tensor, temperature: float) -> Tensor:
        """logits (M, K) -> probabilities (M, K), float32."""

    def after_step(self, parallelism: Parallelism) -> None:
        """Called once a step, after the optimiser: update what is kept from what was seen, over all ranks."""


@dataclass(frozen=True)
class LossContext:
    """What a loss may know when it is built."""

    heads: Mapping[str, HeadShape]
    width: int
    parallelism: Parallelism
    build_target: Callable[[Any, int], Target]
    networks: Mapping[str, BackboneShape] = field(default_factory=dict)  # further networks, by the names of requests


@dataclass
class LossResult:
    """A scalar to minimise, and numbers to log beside it."""

    value: Tensor
    metrics: dict[str, Tensor | float] = field(default_factory=dict)


class Loss(nn.Module, ABC):
    """An objective on the forward results it requested; buffers and parameters of its own are saved with the run."""

    @abstractmethod
    def forward(self, outputs: Outputs, views: Views, values: Scheduled) -> LossResult:
        """outputs[request] is (V, B, K) for "cls", (V, B, N, K) for "patches", (M, K) for "masked", where K is the head's outputs
        or the width without one; else `Tokens` of V * B images. `values` holds this loss's scheduled options by name."""

    def notes(self, metrics: Mapping[str, float]) -> Iterable[str]:
        """What to tell of a step's metrics of this loss, in words; each is told once a run."""
        return ()

    def after_step(self, parallelism: Parallelism) -> None:
        """Called once a step, after the optimiser. The default updates every `Target` inside."""
        for module in self.modules():
            if isinstance(module, Target):
                module.after_step(parallelism)


@dataclass
class Teacher:
    """The network that follows the student: what is measured and exported, and what is learnt from unless a strategy brings another
    network for that.

    follows: names of parameters, the same in student and teacher, that an average keeps together. pairs: this process's part of each
    of them, (student, teacher); there once the networks are where they train.
    """

    network: Network
    follows: list[str]
    pairs: list[tuple[Tensor, Tensor]] = field(default_factory=list)


class Strategy(ABC):  # noqa: B024 - every moment has a default
    """Acts at named moments; a strategy overrides those it needs."""

    def adapt(self, backbone: Backbone) -> None:
        """Change the backbone, before there is a teacher. Parameters that no longer require gradients never train, and are shared
        with the teacher. Every draw is from torch's generator, which is seeded."""
        return None

    def teacher(self, student: Network, make: Callable[[Backbone], Network]) -> Teacher | None:
        """Supply the teacher; None leaves it to the next strategy. `make(backbone)` puts untrained heads of the teacher on a backbone."""
        return None

    def before_step(self, student: Network, step: int, lengths: Mapping[str, int]) -> None:
        """Called before every step, and so before the first of a run that goes on; `lengths` are this strategy's own, in steps. Call
        `student.train()` after changing which parameters require gradients."""
        return None

    def after_step(self, teacher: Teacher, values: Scheduled) -> None:
        """Called once a step, after the optimiser, with this strategy's scheduled options by name."""
        return None

    def export(self, backbone: Backbone, folder: Path) -> None:
        """Write what belongs beside an exported backbone, which is adapted still; `folder` is there."""
        return None

    def merge(self, backbone: Backbone) -> None:
        """Undo what `adapt` did to the backbone's modules, so that it is plain and computes the same."""
        return None


@dataclass(frozen=True)
class Part:
    """What one process holds of a tensor: where it begins in the whole, and the whole's shape."""

    tensor: Tensor
    offsets: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def is_whole(self) -> bool:
        """Whether that is all of it."""
        return tuple(self.tensor.shape) == self.shape


class Parallelism(ABC):
    """Owns processes, and everything that crosses them."""

    rank: int
    world_size: int
    device: torch.device

    @contextmanager
    def placing(self) -> Iterator[None]:
        """Networks are built within it. A parallelism that fills other processes' networks from the first one's builds them without
        memory there."""
        yield

    @property
    def fills(self) -> bool:
        """Whether this process's networks get their values from the first process, so that none need be loaded here."""
        return False

    @abstractmethod
    def wrap(self, objective: Objective, beside: Sequence[Network]) -> nn.Module:
        """Bring an objective, and networks beside it that follow its own, to the device and make its forward and backward span the
        processes. What the networks' parameters are may change: nothing holds them before."""

    @contextmanager
    def micro_batch(self, objective: nn.Module, last: bool) -> Iterator[None]:
        """Forward and backward of one micro-batch run within it; gradients need to cross the processes for the last of a step only."""
        yield

    def part(self, tensor: Tensor) -> Part:
        """What this process holds of a parameter, its gradient or its moments; shares their memory."""
        return Part(tensor.detach(), (0,) * tensor.ndim, tuple(tensor.shape))

    def whole(self, tensor: Tensor) -> Tensor:
        """A parameter put together from all processes, each of which calls this."""
        return tensor.detach()

    @abstractmethod
    def collect(self, value: Any) -> list[Any]:
        """A value (numbers, texts, CPU tensors) of each process, by rank, on all of them."""

    @abstractmethod
    def sum(self, tensor: Tensor) -> Tensor:
        """The tensor summed over processes."""

    @abstractmethod
    def max(self, tensor: Tensor) -> Tensor:
        """The largest of each element over processes."""

    @abstractmethod
    def gather(self, rows: Tensor) -> Tensor:
        """The rows (M, D) of all processes, one rank after another; M is the same everywhere, and a gradient reaches the rows of each."""

    @abstractmethod
    def norms(self, groups: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """The 2-norm of each group of gradients, taken over the group as if it were one vector."""

    def barrier(self) -> None:
        """Wait until every process is here."""
        self.collect(None)


@dataclass(frozen=True)
class Encoder:
    """A frozen view of a backbone for evaluation: items in, tokens out, without touching the run."""

    backbone: Backbone
    preprocessing: Preprocessing
    channels: int
    parallelism: Parallelism  # every process evaluates; what takes long may be divided
    prepare: Callable[[Item], Item]  # an image as it was read -> one of known meaning and channels; DataError names it
    encode: Callable[[Iterable[Item]], Tokens]  # prepared images -> tokens
    unreadable: Callable[[list[str], int], None]  # told what could not be read of so many images
    seen: dict[Any, Any] = field(default_factory=dict)  # features that evaluators of one round share


class Evaluator(ABC):
    """Measures a model. Draws from streams of its own."""

    @abstractmethod
    def evaluate(self, encoder: Encoder) -> dict[str, float]:
        """Figures by name, such as {"accuracy@20": 0.71}; of each, more is better: health tells where a warm start falls below its own, and
        `checkpoint.keep_best` keeps the largest. What is no such figure (an error, of which less is better, or a count) has a name that
        begins with "info/" ("info/mae@20"): it is written and shown beside them, and nothing judges by it. A name may say what a figure
        is a part of by a slash ("iou/3"): such ones are written, and not shown while a run goes on."""
