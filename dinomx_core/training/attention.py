"""The attention that backbones on transformers' attention interface run with, and a way to look at it."""

from collections import deque
from collections.abc import Iterator, MutableSequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface

NAME = "dinomx_sdpa"
SHORT = 64  # tokens
_recordings: list[MutableSequence[Tensor]] = []
_keys: list[list[Tensor]] = []


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention (B, H, T, d) -> (B, T, H, d); on a CPU in float32 whatever the precision of the run.

    The backward pass of bf16 attention is several times slower than that of float32 on CPUs, the two casts cost little;
    for short sequences two plain products beat the fused kernel there (up to twice as fast at 5 to 37 tokens).
    """
    narrow = query.dtype
    if query.device.type == "cpu" and narrow != torch.float64:
        query, key, value = query.float(), key.float(), value.float()
    for maps in _recordings:
        scores = query @ key.transpose(-2, -1) * (scaling or query.shape[-1] ** -0.5)
        maps.append((scores if attention_mask is None else scores + attention_mask).softmax(-1).detach())
    for keys in _keys:
        keys.append(key.detach())
    with torch.autocast(query.device.type, enabled=False):
        if query.device.type == "cpu" and query.shape[-2] <= SHORT and attention_mask is None and not dropout:
            scores = query * (scaling or query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
            result = scores.softmax(-1) @ value
        else:
            result = F.scaled_dot_product_attention(query, key, value, attention_mask, dropout, scale=scaling)
    return result.transpose(1, 2).to(narrow), None


def projected(parts: Any, tokens: Tensor, first: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value (B, H, T, d) of an attention of transformers from tokens (B, T, D); the query of the first tokens only,
    where `first` says how many."""
    linears = ((parts.q_proj, tokens[:, :first]), (parts.k_proj, tokens), (parts.v_proj, tokens))
    query, key, value = (linear(x).unflatten(-1, (-1, parts.head_dim)).transpose(1, 2) for linear, x in linears)
    return query, key, value


@contextmanager
def recorded(last: int | None = None) -> Iterator[MutableSequence[Tensor]]:
    """Within it, every attention that runs adds its weights (B, H, T, T) to what is yielded, in order; only the `last` ones stay, if that
    is given."""
    maps: MutableSequence[Tensor] = [] if last is None else deque(maxlen=last)
    _recordings.append(maps)
    try:
        yield maps
    finally:
        _recordings[:] = [other for other in _recordings if other is not maps]


@contextmanager
def recorded_keys() -> Iterator[list[Tensor]]:
    """Within it, every attention that runs adds its keys (B, H, T, d) to the list, in order."""
    keys: list[Tensor] = []
    _keys.append(keys)
    try:
        yield keys
    finally:
        _keys[:] = [other for other in _keys if other is not keys]


AttentionInterface.register(NAME, attention)
