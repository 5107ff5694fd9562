"""The projection head of DINO."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dinomx_dinov1 import plugin


class WeightNormLinear(nn.Module):
    """y = x W^T with rows W_k = weight_g_k * weight_v_k / |weight_v_k|, without bias (Salimans & Kingma 2016)."""

    def __init__(self, inputs: int, outputs: int, train_magnitude: bool):
        super().__init__()
        self.weight_v = nn.Parameter(nn.Linear(inputs, outputs, bias=False).weight.detach())
        self.weight_g = nn.Parameter(torch.ones(outputs, 1), requires_grad=train_magnitude)

    def forward(self, x: Tensor) -> Tensor:
        """(M, inputs) -> (M, outputs)."""
        return F.linear(x, self.weight_v * (self.weight_g / self.weight_v.norm(dim=1, keepdim=True)))


def projection_mlp(options: "plugin.Projection", width: int) -> nn.Sequential:
    """(M, width) -> (M, bottleneck): linear layers with GELU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(plugin.projection_widths(options, width)):
        linear = nn.Linear(inputs, outputs)
        nn.init.trunc_normal_(linear.weight, std=0.02)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.GELU()]
    return nn.Sequential(*layers[:-1])


class DinoHead(nn.Module):
    """(M, width) -> logits (M, prototypes)."""

    def __init__(self, options: "plugin.DinoHead", width: int):
        super().__init__()
        self.mlp = projection_mlp(options, width)
        self.last_layer = WeightNormLinear(options.bottleneck, options.prototypes, options.train_magnitude)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of rows."""
        return self.last_layer(F.normalize(self.mlp(x), dim=-1))
