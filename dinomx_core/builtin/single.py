"""One process."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dinomx_core.training.contracts import Parallelism


class SingleProcess(Parallelism):
    """Nothing to cross: a sum, a maximum or all rows are the tensor itself."""

    rank, world_size = 0, 1

    def __init__(self, options: object, device: torch.device):
        self.device = device

    def wrap(self, objective: nn.Module) -> nn.Module:
        """The module itself."""
        return objective

    def sum(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        return tensor

    def max(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        return tensor

    def gather(self, rows: Tensor) -> Tensor:
        """The rows themselves."""
        return rows

    def norms(self, groups: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """2-norms from one norm a tensor."""
        each = torch._foreach_norm([grad for group in groups for grad in group])
        result, first = [], 0
        for group in groups:
            part = each[first : first + len(group)]
            result.append(part[0] if len(part) == 1 else torch.stack(part).norm())
            first += len(group)
        return result

    def close(self) -> None:
        """Nothing to close."""
