"""One image through a model, block by block: its patches, and where each head, each register and the rollout attend."""

from collections.abc import Sequence
from math import sqrt

import attrs
import numpy as np
import torch
from torch import Tensor

from dinomx_core import ConfigError, DataError, Preprocessing, TrainingError
from dinomx_core.errors import Problem
from dinomx_core.training.attention import recorded
from dinomx_core.training.flow import Hidden, Item, Tokens
from dinomx_core.training.maps import on_patches, prefix_of
from dinomx_core.training.model import Model
from dinomx_core.training.pixels import chosen, normalise, resize, to_float

MOST = 6400  # patches of an image: attention needs memory with their square


@attrs.frozen(eq=False)
class Attended:
    """Attention of a block to the patches, as shares of all that is given away. heads (H, h, w); registers (R, h, w): the mean over
    heads; rollout (h, w): through all blocks up to this one. Over channels, where these have patches of their own, the sum."""

    heads: np.ndarray
    registers: np.ndarray
    rollout: np.ndarray


@attrs.frozen(eq=False)
class Seen:
    """What a model makes of an image. pixels (C, H, W): as it was resized, before its mean and std. patches (h * w, D) float32, row by
    row; the mean over channels, where these have patches of their own. cls: whether there is a class token, which then asks.
    attended: None for backbones without attentions."""

    item: Item
    pixels: Tensor
    grid: tuple[int, int]
    patches: np.ndarray
    cls: bool
    attended: Attended | None


def sides(height: int, width: int, patch: int, how: Preprocessing, wanted: Sequence[int]) -> tuple[int, int]:
    """Height and width that an image is resized to: multiples of the patch, in its own proportions unless both are wanted. Raises
    DataError where these are too many patches."""
    if len(wanted) == 2:
        exact = (float(wanted[0]), float(wanted[1]))
    else:
        scale = (wanted[0] if wanted else min(how.crop)) / min(height, width)
        exact = (height * scale, width * scale)
        if not wanted and exact[0] * exact[1] > MOST * patch**2:
            less = sqrt(MOST * patch**2 / (exact[0] * exact[1])) * 0.97  # room for rounding
            exact = (exact[0] * less, exact[1] * less)
    high, wide = (max(patch, round(side / patch) * patch) for side in exact)
    if (count := high // patch * (wide // patch)) > MOST:
        raise DataError(
            f"{high} x {wide} pixels are {count} patches, and at most {MOST} are drawn; give a smaller size"
        )
    return high, wide


def block_number(model: Model, block: int) -> int:
    """The number of a block from 0 on. Raises ConfigError where there is none."""
    depth = len(model.backbone.blocks)
    if block > depth:
        raise ConfigError([Problem(f"the model has {depth} blocks, got {block}", "--block")])
    return depth - 1 if block == -1 else block - 1


def see(model: Model, item: Item, size: tuple[int, int], block: int) -> Seen:
    """A prepared image through the model, resized to `size`; `block`: whose attention, from 0 on. Raises TrainingError where features are
    not finite."""
    how, some = model.preprocessing, item.channels
    pixels = to_float(resize(item.image, size))
    given = normalise(pixels, chosen(how.mean, some), chosen(how.std, some))[None]
    device = next(model.backbone.parameters()).device
    which = None if some is None else torch.tensor([some], device=device)
    with torch.no_grad():
        tokens, attention, means = through(model, given.to(device), which, block)
    _, height, width = tokens.grid
    patches = tokens.patches[0].float().unflatten(0, tokens.grid).mean(0).flatten(0, 1).cpu().numpy()
    if not np.isfinite(patches).all():
        raise TrainingError("the model's features are not finite: it has diverged, or its weights are damaged")
    attended = None
    if attention is not None:
        attended = Attended(
            on_grid(tokens, on_patches(tokens, attention), len(attention)),
            np.concatenate([np.empty((0, height, width), np.float32), *of_registers(tokens, attention)]),
            on_grid(tokens, rollout(tokens, means), len(attention))[0],
        )
    return Seen(item, pixels, (height, width), patches, tokens.cls is not None, attended)


def through(
    model: Model, pixels: Tensor, channels: Tensor | None, block: int
) -> tuple[Tokens, Tensor | None, list[Tensor]]:
    """Tokens, attention (S, H, T, T) of a block, and means over heads (S, T, T) of all blocks up to it. Only these are kept: the maps of
    all blocks would need the memory of many models."""
    hidden: Hidden = model.backbone(pixels, blocks=0, channels=channels)
    attention: Tensor | None = None
    means: list[Tensor] = []
    for number, part in enumerate(model.backbone.blocks):
        with recorded() as maps:
            hidden.x = part(hidden.x, **hidden.context)
        if maps and number <= block:
            attention = maps[-1]
            means.append(attention.mean(1))
    return model.backbone.finish(hidden), attention, means


def of_registers(tokens: Tokens, attention: Tensor) -> list[np.ndarray]:
    """What each register gives to the patches (1, h, w), the mean over heads."""
    first = int(tokens.cls is not None)
    numbers = range(first, first + tokens.registers.shape[1])
    rows = [on_patches(tokens, attention, number) for number in numbers]
    return [on_grid(tokens, row, len(attention)).mean(0, keepdims=True) for row in rows]


def rollout(tokens: Tokens, means: Sequence[Tensor]) -> Tensor:
    """Attention rollout (Abnar & Zuidema 2020): the product over blocks of (A + I) / 2, from the last block's query down to the patches of
    the first (1, 1, N). A (S, T, T) is the mean over heads; the query as in `on_patches`."""
    sequences, length, _ = means[0].shape
    prefix = prefix_of(tokens, means[0].unsqueeze(1))
    row = torch.zeros(sequences, 1, length, dtype=means[0].dtype, device=means[0].device)
    if tokens.cls is None:
        row[:, :, prefix:] = 1 / (length - prefix)
    else:
        row[:, :, 0] = 1
    for mean in reversed(means):
        row = (row @ mean + row) / 2
    return on_patches(tokens, row.unsqueeze(1), 0)


def on_grid(tokens: Tokens, weights: Tensor, sequences: int) -> np.ndarray:
    """Weights (1, K, N) of one image on its grid (K, h, w): the sum over channels' own patches, the mean over `sequences`, of which there
    are several where each channel is one."""
    return weights[0].unflatten(-1, tokens.grid).sum(-3).div(sequences).float().cpu().numpy()
