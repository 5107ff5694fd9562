"""VICReg's expander."""

from itertools import pairwise

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional as F

from dinomx_core.training.flow import at_least_float32
from dinomx_vicreg import plugin

EPS = 1e-5


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy 2015) over the rows of all processes, which have as many each. It keeps no running
    statistics, since nothing but training runs through it, so a copy in evaluation mode computes the same."""

    def __init__(self, width: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """(M, D) -> (M, D), float32."""
        x = at_least_float32(x)
        if not dist.is_initialized() or dist.get_world_size() == 1:
            return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=EPS)
        rows = len(x) * dist.get_world_size()
        centred = x - all_reduce(x.sum(0)) / rows
        variance = all_reduce(centred.square().sum(0)) / rows
        return centred * torch.rsqrt(variance + EPS) * self.weight + self.bias


class Expander(nn.Sequential):
    """(M, width) -> (M, outputs)."""

    def __init__(self, options: "plugin.Expander", width: int):
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(plugin.widths(options, width)):
            layers += [nn.Linear(inputs, outputs, bias=False), BatchNorm(outputs), nn.ReLU()]
        super().__init__(*layers[:-3], nn.Linear(*plugin.widths(options, width)[-2:]))
