"""What fits into so much memory: batch, accumulation and recomputation."""

from collections.abc import Iterator
from typing import Literal

import attrs

from dinomx_core.planning.cost import Batch
from dinomx_core.planning.plan import Plan

USED = 0.9  # of the memory: the rest is the libraries' and the allocator's
Recompute = Literal["none", "mlp", "blocks"]
RECOMPUTE: tuple[Recompute, ...] = ("none", "mlp", "blocks")  # exact, and each slower than the one before
LARGEST = 2**16  # images a process and micro-batch


@attrs.frozen
class Proposal:
    """Settings, and the bytes that a process would then need."""

    batch_size: int
    accumulation: int
    recompute: Recompute
    bytes: int

    def settings(self, plan: Plan) -> list[str]:
        """What to put after --set, of what the plan has otherwise."""
        run = plan.spec.run
        ours = {"batch_size": self.batch_size, "accumulation": self.accumulation, "recompute": self.recompute}
        return [f"run.{name}={value}" for name, value in ours.items() if getattr(run, name) != value]


def cost_with(plan: Plan, micro: int, accumulation: int, recompute: Recompute) -> Proposal:
    """The plan with other settings."""
    world = plan.batch.world_size
    batch = Batch(micro * world * accumulation, world, accumulation, micro)
    cost = plan.cost_of(batch, attrs.evolve(plan.spec.run, recompute=recompute, accumulation=accumulation))
    return Proposal(batch.images, accumulation, recompute, cost.memory_bytes)


def ways(plan: Plan) -> list[Recompute]:
    """Kinds of recomputation from what the plan has on; a backbone whose blocks have no MLP of their own has no such one."""
    layout = plan.backbone.layout
    found = [way for way in RECOMPUTE if way != "mlp" or layout is None or layout.mlp]
    now = plan.spec.run.recompute
    return found[found.index(now) :] if now in found else found


def same_batch(plan: Plan, memory: float) -> Proposal | None:
    """The least change that makes the plan's batch fit: recomputation first, since it changes no number, then accumulation."""
    images = plan.batch.images // plan.batch.world_size
    first = plan.batch.accumulation
    for accumulation in (n for n in range(first, images + 1) if images % n == 0):
        for way in ways(plan):
            found = cost_with(plan, images // accumulation, accumulation, way)
            if found.bytes <= USED * memory:
                return found
    return None


def largest(plan: Plan, memory: float) -> Iterator[Proposal]:
    """The largest batch without accumulation, for each kind of recomputation."""
    for way in ways(plan):
        low, high = 0, LARGEST
        while low < high:
            middle = (low + high + 1) // 2
            if cost_with(plan, middle, 1, way).bytes <= USED * memory:
                low = middle
            else:
                high = middle - 1
        if low:
            yield cost_with(plan, low, 1, way)


def advice(plan: Plan, memory: float) -> str:
    """What to change so that a run that ran out of memory fits, for an error's text."""
    found = same_batch(plan, 0.8 * memory)  # the estimate was too low
    if found and (settings := found.settings(plan)):
        return f"try --set {' --set '.join(settings)} (about {found.bytes / 2**30:.1f} GiB)"
    return 'lower run.batch_size, take smaller crops, or divide the networks (parallelism.name = "fsdp")'
