"""DINO's vision transformer, as a `transformers.ViTModel`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ViTConfig, ViTModel
from transformers.models.vit.modeling_vit import ViTLayer
from transformers.utils import logging

from dinomx_core import BackboneShape, DataError
from dinomx_core.training import attention
from dinomx_core.training.contracts import Backbone
from dinomx_core.training.flow import Hidden, Tokens
from dinomx_dinov1 import plugin


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


class Layer(ViTLayer):
    """transformers' block, which can also be asked for its first tokens only: what comes out of the last block for the patches
    is thrown away when a loss looks at the class token alone, so it need not be computed."""

    def forward(self, hidden_states: Tensor, first: int | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D), or (B, first, D): queries and MLP of the first tokens, keys and values of all."""
        parts, normed = self.attention, self.layernorm_before(hidden_states)
        residual = hidden_states[:, :first]
        query, key, value = (
            projection(tokens).unflatten(-1, (-1, parts.head_dim)).transpose(1, 2)
            for projection, tokens in (
                (parts.q_proj, normed[:, :first]),
                (parts.k_proj, normed),
                (parts.v_proj, normed),
            )
        )
        mixed, _ = attention.attention(parts, query, key, value, None, scaling=parts.scaling)
        residual = residual + self.dropout(parts.o_proj(mixed.flatten(2)))
        return residual + self.dropout(self.mlp(self.layernorm_after(residual)))


class ViTBackbone(Backbone):
    """Class token and patches; positions are added to both and interpolated to the grid of each input."""

    can_shorten = True
    roles: ClassVar = {
        "query": ("attention.q_proj",),
        "key": ("attention.k_proj",),
        "value": ("attention.v_proj",),
        "output": ("attention.o_proj",),
        "mlp": ("mlp.fc1", "mlp.fc2"),
        "norm": ("layernorm_before", "layernorm_after"),
    }

    def __init__(self, options: "plugin.ViT", shape: BackboneShape, image_size: int):
        super().__init__()
        self.width, self.patch_size, self.positions = shape.width, shape.patch_size, options.positions
        self.mask_token = options.mask_token
        config = ViTConfig(
            hidden_size=shape.width,
            num_hidden_layers=shape.depth,
            num_attention_heads=shape.heads,
            intermediate_size=shape.mlp_width,
            patch_size=shape.patch_size,
            image_size=options.image_size or image_size,
            num_channels=shape.channels,
            qkv_bias=options.qkv_bias,
            layer_norm_eps=options.layer_norm_eps,
            initializer_range=options.init_std,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        self.model = ViTModel(config, add_pooling_layer=False, use_mask_token=options.mask_token)
        self.model.config._attn_implementation = attention.NAME  # where the model is called as a whole
        for block, probability in zip(self.model.layers, torch.linspace(0, options.drop_path, shape.depth).tolist()):
            block.dropout = DropPath(probability)  # it stands on both branches, right before they are added
            block.__class__ = Layer

    def embed(self, pixels: Tensor, mask: Tensor | None = None) -> Hidden:
        """Patches, mask token, class token, positions."""
        parts = self.model.embeddings
        patches = parts.patch_embeddings.projection(pixels)
        height, width = patches.shape[-2:]
        patches = patches.flatten(2).transpose(1, 2)
        if mask is not None:
            if parts.mask_token is None:
                raise DataError(
                    "patches are masked, but the backbone has no mask token: set backbone.mask_token = true"
                )
            patches = torch.where(mask.unsqueeze(-1), parts.mask_token.to(patches.dtype), patches)
        x = torch.cat([parts.cls_token.expand(len(patches), -1, -1).to(patches.dtype), patches], 1)
        return Hidden(x + self.position_embeddings(height, width), 1, (1, height, width))

    def position_embeddings(self, height: int, width: int) -> Tensor:
        """(1, 1 + height * width, D) for a grid of patches, bicubic where it is not the grid that was learnt."""
        table = self.model.embeddings.position_embeddings
        side = int((table.shape[1] - 1) ** 0.5)
        if (height, width) == (side, side):
            return table
        grid = table[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
        if self.positions == "offset":
            factors = [(height + 0.1) / side, (width + 0.1) / side]
            grid = F.interpolate(grid, scale_factor=factors, mode="bicubic")
        else:
            grid = F.interpolate(grid, size=(height, width), mode="bicubic")
        return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], 1)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The `ViTLayer`s."""
        return self.model.layers

    def finish(self, hidden: Hidden) -> Tokens:
        """Final norm; no registers."""
        x = self.model.layernorm(hidden.x)
        return Tokens(x[:, 0], x[:, 1:1], x[:, 1:], hidden.grid)

    def layer_of(self, name: str) -> int:
        """By the names of `ViTModel`."""
        if name.startswith("model.layers."):
            return int(name.split(".")[2]) + 1
        return 0 if name.startswith("model.embeddings.") else len(self.blocks) + 1

    def is_patch_embedding(self, name: str) -> bool:
        """The projection's weight and bias."""
        return ".patch_embeddings." in name

    def save(self, folder: Path) -> None:
        """A `ViTModel` folder."""
        with no_progress_bars():
            self.model.save_pretrained(folder)

    def load(self, folder: Path) -> None:
        """Weights of a `ViTModel` folder; raises DataError unless every tensor is there, fits, and none is left over."""
        with no_progress_bars():
            loaded, report = ViTModel.from_pretrained(
                folder,
                add_pooling_layer=False,
                use_mask_token=self.mask_token,
                local_files_only=True,
                output_loading_info=True,
            )
        ours = {name: tensor.shape for name, tensor in self.model.state_dict().items()}
        theirs = {name: tensor.shape for name, tensor in loaded.state_dict().items()}
        fresh = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}
        fit = {name for name in ours if theirs.get(name) == ours[name]} - fresh
        extra = sorted({*theirs, *report["unexpected_keys"]} - set(ours))
        if len(fit) < len(ours) or extra:
            faults = sorted(set(ours) - fit) + extra
            raise DataError(
                f"{folder}: {len(fit)}/{len(ours)} tensors fit the backbone; not so {', '.join(faults[:4])}"
                + (f" and {len(faults) - 4} more" if len(faults) > 4 else "")
            )
        self.model.load_state_dict(loaded.state_dict())


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """transformers shows bars for the quickest of loads and saves."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
