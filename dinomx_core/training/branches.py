"""Residual branches of transformer blocks: drop path, rotary positions, and a block that computes no more than is wanted."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dinomx_core.training import attention

PAYS = 0.1  # drop path above which leaving images out is worth the gathering
Angles = tuple[Tensor, Tensor]  # cosines and sines of rotary positions


class DropPath(nn.Module):
    """Skip a residual branch for a random part of the batch and scale the rest up (Huang et al. 2016)."""

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability

    def forward(self, branch: Tensor) -> Tensor:
        """branch (B, T, D), before it is added to its input."""
        if not self.training or self.probability == 0.0:
            return branch
        keep = 1 - self.probability
        shape = (len(branch), *[1] * (branch.ndim - 1))
        return branch * torch.empty(shape, dtype=branch.dtype, device=branch.device).bernoulli_(keep).div_(keep)


class BranchLayer(nn.Module):
    """A block of DINOv2 or DINOv3: each branch is normed, computed, scaled and dropped. Takes the place of transformers' own
    forward, to compute less: a branch for the images that keep it (`subset`), and only the tokens that are wanted."""

    subset = False
    norm1: nn.Module
    norm2: nn.Module
    attention: nn.Module
    mlp: nn.Module
    layer_scale1: nn.Module
    layer_scale2: nn.Module
    drop_path: nn.Module

    def forward(self, x: Tensor, first: int | None = None, position_embeddings: Angles | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D), or (B, first, D): queries and MLP of the first tokens, keys and values of all."""
        x = self.residual(x, lambda part, angles: self.attend(part, first, angles), first, position_embeddings)
        return self.residual(x, lambda part, _: self.layer_scale2(self.mlp(self.norm2(part))), None, None)

    def residual(
        self, x: Tensor, branch: Callable[[Tensor, Angles | None], Tensor], first: int | None, angles: Angles | None
    ) -> Tensor:
        """x[:, :first] + branch(x, angles), under drop path."""
        base, probability = x[:, :first], getattr(self.drop_path, "probability", 0.0)
        if not (self.subset and self.training and probability > PAYS):
            return base + self.drop_path(branch(x, angles))
        kept = max(1, int(len(x) * (1 - probability)))
        rows = torch.randperm(len(x), device=x.device)[:kept]
        if angles is not None and angles[0].ndim == 4:  # each image has its own
            angles = (angles[0][rows], angles[1][rows])
        return base.index_add(0, rows, branch(x[rows], angles).to(base.dtype), alpha=len(x) / kept)

    def attend(self, x: Tensor, first: int | None, angles: Angles | None) -> Tensor:
        """The attention's branch."""
        parts = self.attention
        query, key, value = attention.projected(parts, self.norm1(x), first)
        if angles is not None:
            if x.device.type == "cpu" and key.dtype == torch.bfloat16:  # the attention would widen them later
                query, key = query.float(), key.float()
            key = rotated(key, *angles)
            if first is None:  # the first tokens have no position
                query = rotated(query, *angles)
        mixed, _ = attention.attention(parts, query, key, value, None, scaling=parts.scaling)
        return self.layer_scale1(parts.o_proj(mixed.flatten(2)))


def rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn the last tokens of x (B, H, T, d) by their angles (…, N, d) in pairs of features i and i + d/2 (Su et al. 2021); the tokens
    before them have no position and stay."""
    before, half = x.shape[-2] - cosine.shape[-2], x.shape[-1] // 2
    signed = torch.cat((-sine[..., :half], sine[..., half:]), -1)
    cosine, signed = F.pad(cosine, (0, 0, before, 0), value=1.0), F.pad(signed, (0, 0, before, 0))
    return torch.addcmul(x * cosine, x.roll(half, -1), signed).to(x.dtype)


def offset_positions(table: Tensor, height: int, width: int) -> Tensor:
    """A position table (1, 1 + side^2, D) at another grid, (1, 1 + height * width, D): bicubic by scale factors with 0.1 added,
    as DINO's and DINOv2's code has it."""
    side = int((table.shape[1] - 1) ** 0.5)
    if (height, width) == (side, side):
        return table
    grid = table[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, scale_factor=[(height + 0.1) / side, (width + 0.1) / side], mode="bicubic")
    return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], 1)
