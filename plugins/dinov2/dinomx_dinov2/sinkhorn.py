"""Sinkhorn-Knopp."""

import torch
from torch import Tensor

from dinomx_core.training.contracts import Parallelism, Target
from dinomx_dinov2 import plugin


class SinkhornTarget(Target):
    """exp(logits / temperature), normalised in turn over all ranks' rows for each prototype and over prototypes for each row."""

    def __init__(self, options: "plugin.SinkhornKnopp", outputs: int, parallelism: Parallelism):
        super().__init__()
        self.iterations, self.parallelism = options.iterations, parallelism

    @torch.no_grad()
    def forward(self, logits: Tensor, temperature: float) -> Tensor:
        """logits (M, K) -> probabilities (M, K), float32 (Caron et al. 2020, appendix A). M may be 0 on some ranks.

        The largest logit is taken off first, which changes nothing but the range of numbers.
        """
        with torch.autocast(logits.device.type, enabled=False):
            scaled = logits.float() / temperature
            lowest = scaled.new_full((1,), -torch.inf)
            largest = self.parallelism.max(torch.cat([scaled.flatten(), lowest]).max())
            rows = torch.exp(scaled - largest)
            tiny = torch.finfo(rows.dtype).tiny
            for _ in range(self.iterations):
                rows = rows / self.parallelism.sum(rows.sum(0)).clamp_min(tiny)
                rows = rows / rows.sum(1, keepdim=True).clamp_min(tiny)
        return rows
