"""DINO's vision transformer, as a `transformers.ViTModel`."""

import attrs
import torch
from torch import Tensor
from transformers import ViTConfig, ViTModel
from transformers.models.vit.modeling_vit import ViTLayer

from dinomx_core import BackboneShape
from dinomx_core.training import attention
from dinomx_core.training.branches import offset_positions
from dinomx_core.training.flow import Hidden
from dinomx_core.training.huggingface import HuggingFaceBackbone
from dinomx_dinov1 import plugin


class Layer(ViTLayer):
    """transformers' block, which can also be asked for its first tokens only: what comes out of the last block for the patches
    is thrown away when a loss looks at the class token alone, so it need not be computed."""

    def forward(self, hidden_states: Tensor, first: int | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D), or (B, first, D): queries and MLP of the first tokens, keys and values of all."""
        parts, residual = self.attention, hidden_states[:, :first]
        query, key, value = attention.projected(parts, self.layernorm_before(hidden_states), first)
        mixed, _ = attention.attention(parts, query, key, value, None, scaling=parts.scaling)
        residual = residual + self.dropout(parts.o_proj(mixed.flatten(2)))
        return residual + self.dropout(self.mlp(self.layernorm_after(residual)))


class ViTBackbone(HuggingFaceBackbone):
    """Class token and patches; positions are added to both and interpolated to the grid of each input."""

    can_shorten = True

    def __init__(self, options: "plugin.ViT", shape: BackboneShape, image_size: int):
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
        arguments = {"add_pooling_layer": False, "use_mask_token": options.mask_token}
        super().__init__(ViTModel(config, **arguments), cls=True, prefix=1, arguments=arguments)
        self.options = attrs.evolve(options, image_size=config.image_size)
        self.offset_positions = options.positions == "offset"
        for block in self.blocks:
            block.__class__ = Layer
        self.drop_path(torch.linspace(0, options.drop_path, shape.depth, device="cpu").tolist())

    def embed(self, pixels: Tensor, mask: Tensor | None = None) -> Hidden:
        """Patches, mask token, class token, positions."""
        if not self.offset_positions:
            return super().embed(pixels, mask)
        parts = self.model.embeddings
        patches = parts.patch_embeddings(pixels)
        if mask is not None:
            patches = torch.where(mask.unsqueeze(-1), parts.mask_token.to(patches.dtype), patches)
        x = torch.cat([parts.cls_token.expand(patches.shape[0], -1, -1).to(patches.dtype), patches], 1)
        _, height, width = self.grid(pixels)
        return Hidden(
            x + offset_positions(self.model.embeddings.position_embeddings, height, width),
            self.prefix,
            self.grid(pixels),
        )
