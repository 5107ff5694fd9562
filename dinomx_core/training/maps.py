"""Where a backbone attends: maps of the attention that really runs, on the grid of the patches."""

from collections.abc import Iterable

import torch
from torch import Tensor

from dinomx_core.errors import DataError
from dinomx_core.training.attention import recorded, recorded_keys
from dinomx_core.training.contracts import Encoder
from dinomx_core.training.flow import Item, Tokens


def attended(encoder: Encoder, items: Iterable[Item]) -> tuple[Tokens, list[Tensor]]:
    """Tokens of prepared items, and every block's attention weights (B, H, T, T), first block first, float32; prefix tokens before
    patches. Raises DataError for a backbone without attentions."""
    with recorded() as maps:
        tokens = encoder.encode(items)
    if not maps:
        raise DataError(
            "this backbone has no attentions to look at (a convolutional one, or one that computes its attention itself)"
        )
    return tokens, maps


def prefix_of(tokens: Tokens, attention: Tensor) -> int:
    """How many tokens come before the patches in an attention (B, H, T, T)."""
    return attention.shape[-1] - tokens.patches.shape[1]


def on_patches(tokens: Tokens, attention: Tensor) -> Tensor:
    """Attention (B, H, T, T) -> what goes to patches (B, H, N): from the class token, or the mean over all patches where a backbone
    has none. Class token and registers take no part as keys, and the maps are not rescaled: a head may give patches little."""
    prefix = prefix_of(tokens, attention)
    rows = attention[:, :, 0] if tokens.cls is not None else attention[:, :, prefix:].mean(2)
    return rows[..., prefix:]


def head_maps(encoder: Encoder, items: Iterable[Item], block: int = -1) -> tuple[Tokens, Tensor, Tensor]:
    """Tokens, a block's attention of each head to the patches (B, H, h, w), and its keys of the patches, heads in a row (B, h, w, D); the
    mean over channels, where these have patches of their own."""
    with recorded_keys() as keys:
        tokens, maps = attended(encoder, items)
    channels, height, width = tokens.grid
    found = on_patches(tokens, maps[block]).unflatten(-1, (channels, height, width))
    grouped = keys[block][:, :, -tokens.patches.shape[1] :].transpose(1, 2).flatten(2).unflatten(1, tokens.grid)
    return tokens, torch.mean(found, 2), torch.mean(grouped, 1)
