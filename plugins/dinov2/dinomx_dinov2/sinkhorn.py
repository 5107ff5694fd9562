"""Sinkhorn-Knopp."""

import torch
from torch import Tensor

from dinomx_core.training.contracts import Parallelism, Target
from dinomx_core.training.flow import at_least_float32
from dinomx_dinov2 import plugin


class SinkhornTarget(Target):
    """exp(logits / temperature), normalised in turn over all ranks' rows for each prototype and over prototypes for each row."""

    def __init__(self, options: "plugin.SinkhornKnopp", outputs: int, parallelism: Parallelism):
        super().__init__()
        self.iterations, self.parallelism = options.iterations, parallelism

    @torch.no_grad()
    def forward(self, logits: Tensor, temperature: float) -> Tensor:
        """logits (M, K) -> probabilities (M, K), float32 (Caron et al. 2020, appendix A). M may be 0 on some ranks.

        Worked out in logarithms: exponentials of logits that lie far apart would leave the range of float32.
        """
        with torch.autocast(logits.device.type, enabled=False):
            logs = at_least_float32(logits) / temperature
            for _ in range(self.iterations):
                logs = logs - self._over_rows(logs)
                logs = torch.log_softmax(logs, dim=1)
            return logs.exp()

    def _over_rows(self, logs: Tensor) -> Tensor:
        """log of the sum of exp over all ranks' rows (K,)."""
        lowest = logs.new_full((1, logs.shape[1]), -torch.inf)
        largest = self.parallelism.max(torch.cat([logs, lowest]).amax(0))
        return self.parallelism.sum(torch.exp(logs - largest).sum(0)).log() + largest
