"""The interface of backbones: pixels to tokens. Shapes as in `contracts`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dinomx_core.declare.facts import HowMasked
from dinomx_core.declare.layout import Layout
from dinomx_core.training.flow import Hidden, Tokens, drop_masked


@dataclass(frozen=True)
class Start:
    """The weights that a backbone started from: their name (of a model id, or of the folder or file alone), what to say of the
    loading, their licence where it is known, whether the name is a model id, and the heads beside them, by label."""

    weights: str
    report: str
    licence: str = ""
    hub: bool = False
    heads: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)


class Backbone(nn.Module, ABC):
    """Pixels to tokens in three moves, `embed`, `blocks`, `finish`, on which freezing, sharding and pictures all stand.

    `roles` names the parts within one block by what they do ("query", "key", "value", "output", "mlp", "norm"), as module
    names relative to the block. `options` rebuild this backbone's shape anywhere, without the weights it started from; they are
    those of the component `component`, or of the one that it was built by. `layout`: where its parts are, for strategies that go by
    names of parameters.
    """

    width: int
    patch_size: int
    roles: Mapping[str, tuple[str, ...]]
    options: Any
    component: str = ""
    layout: Layout | None = None

    @abstractmethod
    def embed(self, pixels: Tensor, mask: Tensor | None = None) -> Hidden:
        """pixels (B, C, H, W), mask (B, N) bool: masked patches become the mask token. Positions are added here. Where `any_channels`
        holds, it takes `channels` (B, C) int64 too: which of its channels these are; None: all."""

    @property
    @abstractmethod
    def blocks(self) -> Sequence[nn.Module]:
        """The transformer blocks, each called as `block(x, **context)` -> x (B, T, D)."""

    @abstractmethod
    def finish(self, hidden: Hidden) -> Tokens:
        """The final norm, and the parts told apart."""

    @abstractmethod
    def layer_of(self, name: str) -> int:
        """Depth of a parameter for layer-wise decay: 0 embeddings, i + 1 block i, number of blocks + 1 after them."""

    @abstractmethod
    def is_patch_embedding(self, name: str) -> bool:
        """Whether a parameter belongs to the patch projection."""

    def warm_start(self) -> Start | None:
        """Take the weights that the options name; None where they name none. Raises DataError unless they fit."""
        return None

    def drop(self, hidden: Hidden, mask: Tensor) -> Hidden:
        """Take the masked patches out of the sequence, and out of the blocks' context where it has one a patch."""
        return drop_masked(hidden, mask)

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write a folder that `transformers.AutoModel.from_pretrained` opens."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Take the weights of such a folder; raises DataError unless all of them fit."""

    random_embedding: bool = False  # whether training draws what `embed` gives, so that two networks differ
    any_channels: bool = False  # whether images may have some of the channels only, as `channels` says
    can_shorten: bool = False  # whether blocks take `first=n` and then return their first n tokens only

    def forward(
        self,
        pixels: Tensor,
        mask: Tensor | None = None,
        masking: HowMasked = "none",
        layers: int = 1,
        short: bool = False,
        begun: tuple[Hidden, int] | None = None,
        blocks: int | None = None,
        channels: Tensor | None = None,
    ) -> Any:
        """pixels (B, C, H, W) -> `Tokens`, or a tuple of the last `layers` blocks' `Tokens` where that is more than 1.

        begun: what has come out of the first blocks, and how many, of pixels that are not masked. blocks: so many only, and what comes
        out of them. channels (B, C): as `embed` has it. With masking "drop" the masked patches leave the sequence before the first
        block; every image must mask as many. With `short` only the tokens before the patches are wanted; a backbone that can does
        not compute the rest in its last block.
        """
        if blocks is not None:
            return self._begin(pixels, mask, masking, blocks, channels)
        hidden, done = begun or (self._begin(pixels, mask, masking, 0, channels), 0)
        return self._end(replace(hidden), done, layers, short)

    def _begin(
        self, pixels: Tensor, mask: Tensor | None, masking: HowMasked, blocks: int, channels: Tensor | None
    ) -> Hidden:
        some = {"channels": channels} if self.any_channels else {}
        hidden = self.embed(pixels, mask if masking == "replace" else None, **some)
        if masking == "drop":
            if mask is None:
                raise ValueError("masking 'drop' needs a mask")
            hidden = self.drop(hidden, mask)
        for block in self.blocks[:blocks]:
            hidden.x = block(hidden.x, **hidden.context)
        return hidden

    def _end(self, hidden: Hidden, done: int, layers: int, short: bool) -> Any:
        taken: list[Tokens] = []
        first = len(self.blocks) - layers
        for index, block in enumerate(self.blocks[done:], done):
            if short and self.can_shorten and hidden.prefix and index == len(self.blocks) - 1:
                hidden.context, hidden.grid = {**hidden.context, "first": hidden.prefix}, (1, 0, 0)
            hidden.x = block(hidden.x, **hidden.context)
            if index >= first:
                taken.append(self.finish(hidden))
        return taken[0] if layers == 1 else tuple(taken)
