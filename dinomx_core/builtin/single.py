"""One process."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dinomx_core.training.contracts import Parallelism
from dinomx_core.training.network import Network, Objective


class SingleProcess(Parallelism):
    """Nothing to cross: a sum, a maximum or all rows are the tensor itself."""

    rank, world_size = 0, 1

    def __init__(self, options: object, device: torch.device):
        self.device = device

    def wrap(self, objective: Objective, beside: Sequence[Network]) -> nn.Module:
        """The module itself."""
        for network in beside:
            network.to(self.device)
        return objective.to(self.device)

    def sum(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        return tensor

    def max(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        return tensor

    def gather(self, rows: Tensor) -> Tensor:
        """The rows themselves."""
        return rows

    def collect(self, value: Any) -> list[Any]:
        """The value alone."""
        return [value]

    def norms(self, groups: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """2-norms from one norm a tensor."""
        return group_norms(groups)


def group_norms(groups: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """The 2-norm of each group of tensors, from one norm a tensor."""
    each = torch._foreach_norm([grad for group in groups for grad in group])
    result, first = [], 0
    for group in groups:
        part = each[first : first + len(group)]
        result.append(part[0] if len(part) == 1 else torch.stack(part).norm())
        first += len(group)
    return result
