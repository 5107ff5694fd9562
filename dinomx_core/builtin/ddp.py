"""The same networks in every process, each of which sees its share of a step's images."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dinomx_core.builtin.single import group_norms
from dinomx_core.training.group import ManyProcesses
from dinomx_core.training.network import Network, Objective


class DataParallel(ManyProcesses):
    """torch's DistributedDataParallel: gradients are averaged over the processes while the backward pass goes on."""

    def wrap(self, objective: Objective, beside: Sequence[Network]) -> nn.Module:
        """Parameters are the same in all processes, since each builds them from the run's seed. Which get a gradient may change from
        step to step (a mask token without masks, blocks that are held back), so that is found out anew each time."""
        for network in beside:
            network.to(self.device)
        with warnings.catch_warnings():
            # What replaces this argument would broadcast buffers once, and each process has counted for itself in some.
            warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)
            return DistributedDataParallel(
                objective.to(self.device),
                broadcast_buffers=False,
                find_unused_parameters=self.world_size > 1,
                gradient_as_bucket_view=True,
            )

    @contextlib.contextmanager
    def micro_batch(self, objective: nn.Module, last: bool) -> Iterator[None]:
        """Gradients stay where they are until the last."""
        assert isinstance(objective, DistributedDataParallel)
        with contextlib.nullcontext() if last else objective.no_sync():
            yield

    def norms(self, groups: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Every process has the whole gradients."""
        return group_norms(groups)
