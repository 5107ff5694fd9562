"""Centering."""

import torch
from torch import Tensor

from dinomx_core.training.contracts import Parallelism, Target
from dinomx_core.training.flow import at_least_float32
from dinomx_dinov1 import plugin


class CenteringTarget(Target):
    """softmax((logits - centre) / temperature); the centre follows the mean logit of all ranks' rows, after they were used."""

    center: Tensor
    seen: Tensor
    count: Tensor

    def __init__(self, options: "plugin.Centering", outputs: int, parallelism: Parallelism):
        super().__init__()
        self.momentum = options.momentum
        self.register_buffer("center", torch.zeros(1, outputs))
        self.register_buffer("seen", torch.zeros(1, outputs), persistent=False)
        self.register_buffer("count", torch.zeros(()), persistent=False)

    def forward(self, logits: Tensor, temperature: float) -> Tensor:
        """logits (M, K) -> probabilities (M, K), float32; notes the logits for the next centre."""
        logits = at_least_float32(logits)
        if self.training:
            self.seen += logits.sum(0, keepdim=True)
            self.count += len(logits)
        return torch.softmax((logits - self.center) / temperature, dim=-1)

    @torch.no_grad()
    def after_step(self, parallelism: Parallelism) -> None:
        """centre <- momentum * centre + (1 - momentum) * mean (Caron et al. 2021, equation 4)."""
        seen, count = parallelism.sum(self.seen), parallelism.sum(self.count)
        if count > 0:
            self.center.lerp_(seen / count, 1 - self.momentum)
        self.seen.zero_()
        self.count.zero_()
