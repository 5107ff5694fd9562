"""The projection head of DINOv3."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from dinomx_dinov3 import plugin


class Dinov3Head(nn.Module):
    """(M, width) -> logits (M, prototypes)."""

    def __init__(self, options: "plugin.Dinov3Head", width: int):
        super().__init__()
        widths = [width, *[options.hidden] * (options.layers - 1), options.bottleneck]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            linear = nn.Linear(inputs, outputs)
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.GELU()]
        self.mlp = nn.Sequential(*layers[:-1])
        self.last_layer = nn.Linear(options.bottleneck, options.prototypes, bias=False)
        nn.init.trunc_normal_(self.last_layer.weight, std=options.init_std)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of rows."""
        return self.last_layer(F.normalize(self.mlp(x), dim=-1))
