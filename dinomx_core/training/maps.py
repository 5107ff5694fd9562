"""Where a backbone attends: maps of the attention that really runs, on the grid of the patches."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from dinomx_core.errors import DataError
from dinomx_core.training.attention import recorded, recorded_keys
from dinomx_core.training.contracts import Encoder
from dinomx_core.training.flow import Item, Tokens


def attended(encoder: Encoder, items: Iterable[Item]) -> tuple[Tokens, Sequence[Tensor]]:
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
    """How many tokens come before the patches in an attention (S, H, T, T): of a sequence an image, or one each of its channels."""
    return attention.shape[-1] - tokens.patches.shape[1] * len(tokens.patches) // len(attention)


def on_patches(tokens: Tokens, attention: Tensor, query: int | None = None) -> Tensor:
    """Attention (S, H, T, T) -> what goes to patches (B, H, N): from the prefix token `query`; None: from the class token, or the mean over
    all patches where a backbone has none. Class token and registers take no part as keys, and the maps are not rescaled: a head may give
    patches little. Where each channel is a sequence of its own, each gives its own patches' part."""
    prefix = prefix_of(tokens, attention)
    if query is None and tokens.cls is not None:
        query = 0
    rows = attention[:, :, prefix:].mean(2) if query is None else attention[:, :, query]
    return rows[..., prefix:].unflatten(0, (len(tokens.patches), -1)).transpose(1, 2).flatten(2)


def head_maps(encoder: Encoder, items: Iterable[Item], block: int = -1) -> tuple[Tokens, Tensor, Tensor]:
    """Tokens, a block's attention of each head to the patches (B, H, h, w), and its keys of the patches, heads in a row (B, h, w, D); the
    mean over channels, where these have patches of their own."""
    with recorded_keys() as keys:
        tokens, maps = attended(encoder, items)
    found = on_patches(tokens, maps[block]).unflatten(-1, tokens.grid)
    own = keys[block][:, :, prefix_of(tokens, maps[block]) :].transpose(1, 2).flatten(2)
    grouped = own.reshape(len(tokens.patches), -1, own.shape[-1]).unflatten(1, tokens.grid)
    return tokens, torch.mean(found, 2), torch.mean(grouped, 1)
