"""Declarations: fully sharded data parallelism."""

from collections.abc import Iterator
from importlib import metadata
from typing import Literal

import attrs

from dinomx_core import Division, Draft, Load, Parallelism, Processes, hookimpl, option

DINOMX_API = 1

Number = Literal["float32", "bf16"]
BYTES = {"float32": 4, "bf16": 2}
OLDEST = (2, 13)  # version of torch whose FSDP2 this was written against


@attrs.frozen
class Fsdp(Processes):
    """Networks, gradients and optimiser state divided over the processes (FSDP2)."""

    weights: Number = option(
        "float32", "number type in which weights are sent and computed with; the parts that are kept are float32"
    )
    gradients: Number = option("float32", "number type in which gradients are summed")
    reshard: bool = option(
        True,
        "give a block's weights back after its forward pass and fetch them again for the backward pass; false: faster, more memory",
    )
    offload: bool = option(False, "keep the parts, gradients and optimiser state in the memory of the CPU; for GPUs")


def divide_fsdp(options: Fsdp, load: Load) -> Division:
    """Each process holds one part in N, fetches the weights of one block at a time and of the next one ahead, and sums gradients
    from a buffer. A ring sends (N - 1) / N of what is fetched or summed."""
    n = load.world_size
    weight, gradient = BYTES[options.weights], BYTES[options.gradients]
    everything = load.trainable + load.shared
    passing = (2 * weight * load.unit if options.reshard else weight * everything) + 2 * gradient * load.unit
    fetched = (1 + options.reshard) * load.accumulation * everything + load.accumulation * (load.still + load.shared)
    return Division(1 / n, passing, (fetched * weight + load.trainable * gradient) * (n - 1) / n)


def check_fsdp(options: Fsdp, draft: Draft) -> Iterator[tuple[str, str]]:
    """Offloading is from a GPU; the torch that is there is new enough, which installing leaves to the user, since it may be a CUDA one."""
    version = metadata.version("torch")
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        yield "", f'needs torch {oldest} or newer, and this is {version}; upgrade torch, or take "ddp"'
    if options.offload and draft.device != "cuda":
        yield "offload", "there is no GPU whose memory it could save; leave it out"


@hookimpl
def dinomx_parallelisms():
    yield Parallelism("fsdp", Fsdp, "dinomx_fsdp.sharded:FullyShard", divide=divide_fsdp, check=check_fsdp)
