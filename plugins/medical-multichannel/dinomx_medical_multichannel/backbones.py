"""Backbones that see channels apart: what any transformer of one channel becomes by a class that stands before its own."""

from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dinomx_core import BackboneShape, Chosen, DataError
from dinomx_core.builtin.plugin import dinomx_backbones
from dinomx_core.training.construct import construct
from dinomx_core.training.flow import Hidden, Tokens
from dinomx_core.training.huggingface import HuggingFaceBackbone
from dinomx_medical_multichannel.channels import BagOfChannels, ChannelTokens, inner_shape

MARKS = "channel_embedding"
MARKS_FILE = f"{MARKS}.safetensors"  # beside the exported transformer
KINDS: dict[tuple[type, type], type] = {}


class ChannelTokensBackbone(HuggingFaceBackbone):
    """All channels' patches in one sequence, each with its channel's mark; class token and registers once."""

    any_channels = True
    channel_embedding: nn.Parameter  # (channels, D)

    def embed(self, pixels: Tensor, mask: Tensor | None = None, channels: Tensor | None = None) -> Hidden:
        """pixels (B, C, H, W), mask (B, C * N), channels (B, C): numbers of the marks; None: the first C."""
        images, count = pixels.shape[:2]
        alone = super().embed(
            pixels.flatten(0, 1).unsqueeze(1), None if mask is None else mask.view(images * count, -1)
        )
        marks = self.channel_embedding[:count] if channels is None else self.channel_embedding[channels]
        x = alone.x.unflatten(0, (images, count))
        patches = x[:, :, self.prefix :] + marks.unsqueeze(-2).to(x.dtype)
        x = torch.cat([x[:, 0, : self.prefix], patches.flatten(1, 2)], 1)
        context = dict(alone.context)
        if "position_embeddings" in context:  # angles of each patch, the same in every channel
            context["position_embeddings"] = tuple(angles.repeat(count, 1) for angles in context["position_embeddings"])
        return Hidden(x, self.prefix, (count, *alone.grid[1:]), context)

    def save(self, folder: Path) -> None:
        """The transformer of one channel, and the marks in a file beside it."""
        super().save(folder)
        save_file({MARKS: self.channel_embedding.detach().cpu().contiguous()}, folder / MARKS_FILE)

    def load(self, folder: Path) -> None:
        """Such a folder. Raises DataError unless all of it fits."""
        super().load(folder)
        try:
            marks = load_file(folder / MARKS_FILE)[MARKS]
            with torch.no_grad():
                self.channel_embedding.copy_(marks)
        except (OSError, KeyError, RuntimeError, SafetensorError) as error:
            raise DataError(f"{folder / MARKS_FILE}: cannot be loaded: {error}", "weights") from None


class BagOfChannelsBackbone(HuggingFaceBackbone):
    """Every channel goes through the transformer alone. Class token and registers of an image are the means of its channels'."""

    any_channels = True

    def embed(self, pixels: Tensor, mask: Tensor | None = None, channels: Tensor | None = None) -> Hidden:
        """pixels (B, C, H, W), mask (B, C * N) -> x (B * C, T, D), whose grid tells C; which channels these are is nothing to it."""
        images, count = pixels.shape[:2]
        alone = super().embed(
            pixels.flatten(0, 1).unsqueeze(1), None if mask is None else mask.view(images * count, -1)
        )
        return Hidden(alone.x, alone.prefix, (count, *alone.grid[1:]), alone.context)

    def drop(self, hidden: Hidden, mask: Tensor) -> Hidden:
        """Each channel without its own masked patches; every one must mask as many."""
        count = hidden.grid[0]
        dropped = super().drop(hidden, mask.view(len(hidden.x), -1))
        dropped.grid = (count, 1, dropped.grid[-1])
        return dropped

    def finish(self, hidden: Hidden) -> Tokens:
        """Channels put together again."""
        alone, count = super().finish(hidden), hidden.grid[0]
        parts = alone.summary.unflatten(0, (-1, count))
        registers = alone.registers.unflatten(0, (-1, count)).mean(1)
        patches = alone.patches.unflatten(0, (-1, count)).flatten(1, 2)
        return Tokens(None if alone.cls is None else parts.mean(1), registers, patches, hidden.grid, parts)


def build_channel_tokens(options: ChannelTokens, shape: BackboneShape, image_size: int) -> HuggingFaceBackbone:
    """A transformer with marks for the channels."""
    backbone: Any = turned(options, ChannelTokensBackbone, image_size)
    marks = torch.empty(shape.tensors[MARKS])
    backbone.channel_embedding = nn.Parameter(nn.init.trunc_normal_(marks, std=0.02))
    backbone.layout = shape.layout
    backbone.options = attrs.evolve(backbone.options, channels=len(marks))
    return backbone


def build_bag(options: BagOfChannels, shape: BackboneShape, image_size: int) -> HuggingFaceBackbone:
    """A transformer that sees one channel at a time."""
    backbone = turned(options, BagOfChannelsBackbone, image_size)
    backbone.can_shorten = False  # it would forget how many channels there are
    return backbone


def turned(options: Any, kind: type, image_size: int) -> HuggingFaceBackbone:
    """The backbone inside, of a class that stands before its own. Its `options` rebuild it without the weights it starts from."""
    inner = options.inner
    backbone = construct(inner, inner_shape(inner, image_size), image_size)
    own = type(backbone)
    if (kind, own) not in KINDS:
        KINDS[kind, own] = type(f"{kind.__name__}{own.__name__}", (kind, own), {})
    backbone.__class__ = KINDS[kind, own]
    component = inner.component
    if backbone.component and backbone.component != component.name:
        component = next(c for c in dinomx_backbones() if c.name == backbone.component)
    backbone.options = attrs.evolve(options, inner=Chosen("inner", component, backbone.options))
    backbone.component = ""
    return backbone
