"""Several processes: how they meet, and what all parallelisms over them have in common."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from dinomx_core.declare.processes import Processes
from dinomx_core.planning.world import World, started
from dinomx_core.training.contracts import Parallelism
from dinomx_core.training.hosts import address_towards, interface_of

ALONE = World(1, 0, 0, 1, "", "")


def join(options: Processes, device: torch.device) -> tuple[World, torch.device]:
    """Meet the other processes, unless that was done before; they stay together until this process ends. Returns which of them this
    is, and its own device."""
    world = started(os.environ) or ALONE
    if device.type == "cuda":
        device = torch.device("cuda", world.local_rank)
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        backend = {"auto": "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"}.get(
            options.backend, options.backend
        )
        store: dist.Store
        if world.size == 1:
            store = dist.HashStore()
        else:
            host, _, port = world.address.rpartition(":")
            os.environ.update(
                MASTER_ADDR=host, MASTER_PORT=port, RANK=str(world.rank), WORLD_SIZE=str(world.size)
            )  # where srun has started this process they are not set
            if world.size > world.local_size and (name := interface_of(address_towards(host, int(port)))):
                os.environ.setdefault(
                    "GLOO_SOCKET_IFNAME", name
                )  # it would go by the host's name, which may mean another
            store, _, _ = next(dist.rendezvous("env://", timeout=timedelta(seconds=options.timeout)))
            store = dist.PrefixStore(f"attempt {world.attempt}", store)  # it may be the one that they met in before
        dist.init_process_group(
            backend,
            store=store,
            rank=world.rank,
            world_size=world.size,
            timeout=timedelta(seconds=options.timeout),
            device_id=device if device.type == "cuda" else None,
        )
    return world, device


class _Gather(torch.autograd.Function):
    """All processes' rows; backward, each gets the sum of what all of them send to its rows."""

    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        context.count = len(rows)
        found = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(found, rows.contiguous())
        return torch.cat(found)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous()
        dist.all_reduce(total)
        first = dist.get_rank() * context.count
        return total[first : first + context.count]


class ManyProcesses(Parallelism):
    """What crosses processes through torch.distributed. Sub-classes say how networks are divided."""

    def __init__(self, options: Processes, device: torch.device):
        self.options = options
        world, self.device = join(options, device)
        self.rank, self.world_size = world.rank, world.size

    def sum(self, tensor: Tensor) -> Tensor:
        """A new tensor."""
        result = tensor.clone()
        dist.all_reduce(result)
        return result

    def max(self, tensor: Tensor) -> Tensor:
        """A new tensor."""
        result = tensor.clone()
        dist.all_reduce(result, dist.ReduceOp.MAX)
        return result

    def gather(self, rows: Tensor) -> Tensor:
        """Differentiable; M must be the same everywhere."""
        return _Gather.apply(rows)

    def collect(self, value: Any) -> list[Any]:
        """Through pickle, from one process of this run to another."""
        found: list[Any] = [None] * self.world_size
        dist.all_gather_object(found, value)
        return found


@contextlib.contextmanager
def no_group_left() -> Iterator[None]:
    """Take leave of the other processes at the end."""
    try:
        yield
    finally:
        if dist.is_initialized():
            with contextlib.suppress(Exception):  # the others may have gone
                dist.destroy_process_group()


def local(tensors: Sequence[Tensor], parallelism: Parallelism) -> list[Tensor]:
    """What this process holds of each."""
    return [parallelism.part(tensor).tensor for tensor in tensors]
