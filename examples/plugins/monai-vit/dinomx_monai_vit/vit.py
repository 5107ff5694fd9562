"""The backbone around MONAI's vision transformer, and its weights as transformers has them."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import attrs
import torch
from monai.networks.blocks.selfattention import SABlock
from monai.networks.blocks.transformerblock import TransformerBlock
from monai.networks.nets import ViT
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import IJepaConfig, IJepaModel, ViTConfig, ViTModel

from dinomx_core import BackboneShape
from dinomx_core.declare.layout import VIT
from dinomx_core.training import attention
from dinomx_core.training.backbone import Backbone
from dinomx_core.training.flow import Hidden, Tokens, at_least_float32
from dinomx_core.training.huggingface import HuggingFaceBackbone
from dinomx_monai_vit import plugin

POSITIONS = "model.patch_embedding.position_embeddings"


class Attention(SABlock):
    """MONAI's self-attention with query, key and value apart, computed where attentions can be looked at."""

    def forward(self, x: Tensor, first: int | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D), or (B, first, D): queries of the first tokens, keys and values of all."""
        linears = ((self.to_q, x[:, :first]), (self.to_k, x), (self.to_v, x))
        query, key, value = (linear(t).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for linear, t in linears)
        dropout = self.dropout_rate if self.training else 0.0
        mixed, _ = attention.attention(self, query, key, value, None, scaling=self.scale, dropout=dropout)
        return self.drop_output(self.out_proj(mixed.flatten(2)))


class Block(TransformerBlock):
    """MONAI's block without cross-attention, which can also be asked for its first tokens only."""

    def forward(self, x: Tensor, first: int | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D), or (B, first, D)."""
        x = x[:, :first] + self.attn(self.norm1(x), first)
        return x + self.mlp(self.norm2(x))


def spread(model: ViT, std: float) -> None:
    """Draw weights of linear layers, the patch projection, class token and learnt positions anew; biases start at 0."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            nn.init.trunc_normal_(parameter, std=std)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


class MonaiBackbone(Backbone):
    """Class token, which has no position, and patches; positions are interpolated to the grid of each input."""

    layout = plugin.LAYOUT
    roles = plugin.LAYOUT.roles

    def __init__(self, options: "plugin.MonaiViT", shape: BackboneShape, image_size: int):
        super().__init__()
        self.options = attrs.evolve(options, image_size=options.image_size or image_size)
        self.width, self.patch_size, self.prefix = shape.width, shape.patch_size, shape.prefix
        self.can_shorten = options.class_token  # without one an image's summary is made of all tokens
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.meshgrid", UserWarning)
            self.model = ViT(
                in_channels=shape.channels,
                img_size=self.options.image_size,
                patch_size=shape.patch_size,
                hidden_size=shape.width,
                mlp_dim=shape.mlp_width,
                num_layers=shape.depth,
                num_heads=shape.heads,
                pos_embed_type=options.positions,
                classification=options.class_token,
                dropout_rate=options.dropout,
                spatial_dims=2,
                qkv_bias=options.qkv_bias,
            )
        if options.class_token:
            del self.model.classification_head
        for block in self.model.blocks:
            block.__class__ = Block
            block.attn = Attention(
                shape.width, shape.heads, options.dropout, qkv_bias=options.qkv_bias, use_combined_linear=False
            )
            block.cross_attn = block.norm_cross_attn = nn.Identity()  # there whether they are used or not
        if options.positions == "sincos":  # what never trains is no parameter
            table = self.model.patch_embedding.position_embeddings.detach()
            del self.model.patch_embedding.position_embeddings
            self.model.patch_embedding.register_buffer("position_embeddings", table)
        if options.init_std:
            spread(self.model, options.init_std)
        self.mask_token: nn.Parameter | None = None
        if options.mask_token:
            self.mask_token = nn.Parameter(torch.empty(1, 1, shape.width).normal_(std=0.02))

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The model's own blocks."""
        return self.model.blocks

    def embed(self, pixels: Tensor, mask: Tensor | None = None) -> Hidden:
        """Patches, mask token, positions, class token."""
        parts = self.model.patch_embedding
        patches = parts.patch_embeddings(pixels)
        grid = (1, *patches.shape[-2:])
        x = patches.flatten(2).transpose(1, 2)
        if mask is not None:
            assert self.mask_token is not None, "the plan lets no masks through without a mask token"
            x = torch.where(mask.unsqueeze(-1), self.mask_token.to(x.dtype), x)
        x = parts.dropout(x + self.positions(*grid[1:]))
        if self.prefix:
            x = torch.cat([self.model.cls_token.expand(len(x), -1, -1).to(x.dtype), x], 1)
        return Hidden(x, self.prefix, grid)

    def positions(self, rows: int, columns: int) -> Tensor:
        """The table at a grid (1, rows * columns, D), by bicubic interpolation where it is made for another."""
        table: Tensor = self.model.patch_embedding.position_embeddings
        side = self.options.image_size // self.patch_size
        if (rows, columns) == (side, side):
            return table
        maps = at_least_float32(table).unflatten(1, (side, side)).permute(0, 3, 1, 2)
        maps = F.interpolate(maps, size=(rows, columns), mode="bicubic", align_corners=False)
        return maps.flatten(2).transpose(1, 2)

    def finish(self, hidden: Hidden) -> Tokens:
        """The last norm, and the parts told apart."""
        x = self.model.norm(hidden.x)
        return Tokens(x[:, 0] if self.prefix else None, x[:, :0], x[:, self.prefix :], hidden.grid)

    def layer_of(self, name: str) -> int:
        """By the path of the blocks and the names before them."""
        return self.layout.layer_of(name, len(self.blocks))

    def is_patch_embedding(self, name: str) -> bool:
        """The projection's weight and bias."""
        return name.startswith("model.patch_embedding.patch_embeddings.")

    def save(self, folder: Path) -> None:
        """As the ViT of transformers, or its I-JEPA where there is no class token: they compute the same."""
        other = self.in_transformers()
        state = {theirs: tensor for ours, theirs in self.names().items() for tensor in [self.state_dict()[ours]]}
        if self.prefix:  # a ViT's class token has a position
            table = state["model.embeddings.position_embeddings"]
            state["model.embeddings.position_embeddings"] = torch.cat([torch.zeros_like(table[:, :1]), table], 1)
        other.load_state_dict(state)
        other.save(folder)

    def load(self, folder: Path) -> None:
        """The way back."""
        other = self.in_transformers()
        other.load(folder)
        theirs = other.state_dict()
        state = {ours: theirs[name] for ours, name in self.names().items()}
        if self.prefix:
            table = state[POSITIONS]
            state["model.cls_token"] = state["model.cls_token"] + table[:, :1]
            state[POSITIONS] = table[:, 1:]
        self.load_state_dict(state)

    def in_transformers(self) -> HuggingFaceBackbone:
        """The same network, of fresh weights, as transformers has it."""
        kind, config = (ViTModel, ViTConfig) if self.prefix else (IJepaModel, IJepaConfig)
        sizes = config(
            hidden_size=self.width,
            num_hidden_layers=len(self.blocks),
            num_attention_heads=self.options.heads,
            intermediate_size=plugin.mlp_width(self.options),
            patch_size=self.patch_size,
            image_size=self.options.image_size,
            num_channels=self.model.patch_embedding.patch_embeddings.in_channels,
            qkv_bias=self.options.qkv_bias,
            layer_norm_eps=self.model.norm.eps,
            hidden_dropout_prob=self.options.dropout,
            attention_probs_dropout_prob=self.options.dropout,
        )
        arguments = {"add_pooling_layer": False, "use_mask_token": self.mask_token is not None}
        with torch.random.fork_rng(devices=[]):
            return HuggingFaceBackbone(kind(sizes, **arguments), bool(self.prefix), self.prefix, arguments)

    def names(self) -> dict[str, str]:
        """Names of all tensors -> transformers' names, as `HuggingFaceBackbone` has them."""
        moves = {
            POSITIONS: "model.embeddings.position_embeddings",
            "model.patch_embedding.patch_embeddings": "model.embeddings.patch_embeddings.projection",
            "model.cls_token": "model.embeddings.cls_token",
            "mask_token": "model.embeddings.mask_token",
            "model.norm": "model.layernorm",
        }
        for number in range(len(self.blocks)):
            for role in self.roles:
                moves.update(zip(self.layout.modules(role, number), VIT.modules(role, number)))
        found = {}
        for name in self.state_dict():
            module, _, leaf = name.rpartition(".")
            found[name] = moves[name] if name in moves else f"{moves[module]}.{leaf}"
        return found
