"""Networks in parts: torch's `fully_shard`, block by block."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard

from dinomx_core.training.contracts import Part
from dinomx_core.training.group import ManyProcesses
from dinomx_core.training.network import Network, Objective
from dinomx_fsdp import plugin
from dinomx_fsdp.borrowed import borrow, lend

TYPES = {"float32": None, "bf16": torch.bfloat16}
# Tokens are views of one tensor, and nothing here changes them in place.
warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)


class FullyShard(ManyProcesses):
    """Each process holds a part of every tensor. A block's weights are put together when it runs, and its gradients are summed to the
    parts. The first process alone builds networks with their values; the others are filled from it."""

    def __init__(self, options: "plugin.Fsdp", device: torch.device):
        super().__init__(options, device)
        self.mesh = init_device_mesh(self.device.type, (self.world_size,))
        self.how = {
            "mesh": self.mesh,
            "mp_policy": MixedPrecisionPolicy(TYPES[options.weights], TYPES[options.gradients]),
            "offload_policy": CPUOffloadPolicy() if options.offload else OffloadPolicy(),
            "shard_placement_fn": self.place,
        }
        self.reshard, self.offload = options.reshard, options.offload
        self.roots: list[FSDPModule] = []

    @property
    def fills(self) -> bool:
        """The first process has the values."""
        return self.rank > 0

    @contextlib.contextmanager
    def placing(self) -> Iterator[None]:
        """Without memory on all processes but the first."""
        with torch.device("meta") if self.fills else contextlib.nullcontext():
            yield

    def place(self, parameter: nn.Parameter) -> Shard:
        """The first dimension that divides evenly, so that all processes hold as much; else the first."""
        sides = (d for d, side in enumerate(parameter.shape) if side and side % self.world_size == 0)
        return Shard(next(sides, 0))

    def wrap(self, objective: Objective, beside: Sequence[Network]) -> nn.Module:
        """Blocks, heads, what else a backbone has, and losses with parameters are a unit each."""
        student = objective.networks["student"]
        networks = list(dict.fromkeys([*objective.networks.values(), *beside]))  # a student may be its own teacher
        everything = nn.ModuleList([objective, *beside])
        values = {**dict(everything.named_parameters()), **dict(everything.named_buffers())}
        loans = [
            loan
            for network in networks
            if network is not student
            for loan in borrow(student.backbone, network.backbone)
        ]
        everything.to("meta")
        for network in networks:
            self.shard(network, network is not student)
        for loss in objective.losses.values():
            if any(True for _ in loss.parameters()):
                self.unit(loss, True)
                self.roots.append(loss)
        everything.to_empty(device="cpu" if self.offload else self.device)
        for module in everything.modules():  # what is offloaded are parameters alone
            for name, buffer in module.named_buffers(recurse=False):
                module._buffers[name] = buffer.to(self.device)
        self.fill(everything, values)
        for loan in loans:
            lend(loan)
        return objective

    def shard(self, network: Network, frozen: bool) -> None:
        """The units of one network."""
        for block in network.backbone.blocks:
            self.unit(block, self.reshard or frozen)
        for module in (*network.heads.values(), network.backbone):
            self.unit(module, True)
            self.roots.append(module)

    def unit(self, module: nn.Module, reshard: bool) -> None:
        """One module whose weights come and go together."""
        fully_shard(module, reshard_after_forward=reshard, **self.how)

    @torch.no_grad()
    def fill(self, everything: nn.Module, values: dict[str, Tensor]) -> None:
        """Give every process its parts of the first one's values."""
        names = [*everything.named_parameters(), *everything.named_buffers()]
        for name, tensor in names:
            part = self.part(tensor)
            whole = (
                values[name].detach().to(self.device)
                if not self.fills
                else torch.empty(part.shape, dtype=tensor.dtype, device=self.device)
            )
            dist.broadcast(whole, 0)
            part.tensor.copy_(whole[tuple(slice(o, o + s) for o, s in zip(part.offsets, part.tensor.shape))])

    @contextlib.contextmanager
    def micro_batch(self, objective: nn.Module, last: bool) -> Iterator[None]:
        """Gradients stay whole until the last."""
        for module in self.roots:
            module.set_requires_gradient_sync(last)
        yield

    def part(self, tensor: Tensor) -> Part:
        """The local part of a sharded tensor."""
        if not isinstance(tensor, DTensor):
            return super().part(tensor)
        local = tensor.detach().to_local()
        (placement,) = tensor.placements
        offsets = [0] * tensor.ndim
        if isinstance(placement, Shard):
            side = tensor.shape[placement.dim]
            offsets[placement.dim] = min(side, -(-side // self.world_size) * self.rank)
        return Part(local, tuple(offsets), tuple(tensor.shape))

    def whole(self, tensor: Tensor) -> Tensor:
        """All parts together, on every process."""
        return tensor.detach().full_tensor() if isinstance(tensor, DTensor) else tensor.detach()

    def norms(self, groups: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """2-norms over all parts: the squares of each process's are summed."""
        squares = []
        for group in groups:
            parts = [self.part(grad).tensor for grad in group]
            squares.append(torch.stack(torch._foreach_norm(parts)).square().sum())
        return list(self.sum(torch.stack(squares)).sqrt())
