"""The projection head of DINOv3."""

from torch import Tensor, nn
from torch.nn import functional as F

from dinomx_dinov1.head import projection_mlp
from dinomx_dinov3 import plugin


class Dinov3Head(nn.Module):
    """(M, width) -> logits (M, prototypes)."""

    def __init__(self, options: "plugin.Dinov3Head", width: int):
        super().__init__()
        self.mlp = projection_mlp(options, width)
        self.last_layer = nn.Linear(options.bottleneck, options.prototypes, bias=False)
        nn.init.trunc_normal_(self.last_layer.weight, std=options.init_std)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of rows."""
        return self.last_layer(F.normalize(self.mlp(x), dim=-1))
