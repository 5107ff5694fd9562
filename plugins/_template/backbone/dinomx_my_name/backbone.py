"""The backbone."""

import torch
from torch import Tensor

from dinomx_core import BackboneShape
from dinomx_core.builtin.hf import build_hf
from dinomx_core.training.backbone import Backbone
from dinomx_my_name import plugin


def waves(side: int, width: int) -> Tensor:
    """Positions (side * side, width): sines and cosines of the column, then of the row, from one radian a patch to 1/10,000."""
    speed = 10_000 ** -torch.linspace(0, 1, width // 4)
    angle = torch.arange(side)[:, None] * speed
    along = torch.cat([angle.sin(), angle.cos()], 1)
    return torch.cat([along.repeat(side, 1), along.repeat_interleave(side, 0)], 1)


def build(options: "plugin.MyName", shape: BackboneShape, image_size: int) -> Backbone:
    """A fresh `transformers.ViTModel` behind the core's adapter; the position table's first row is the class token's."""
    backbone = build_hf(plugin.as_hf(options), shape, image_size)
    with torch.no_grad():
        table = backbone.model.embeddings.position_embeddings
        table[0, 1:] = waves(image_size // options.patch_size, options.width)
    return backbone
