"""Declarations: fully sharded data parallelism."""

from typing import Literal

import attrs

from dinomx_core import Division, Load, Parallelism, Processes, hookimpl, option

Number = Literal["float32", "bf16"]
BYTES = {"float32": 4, "bf16": 2}


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
    """Each process holds one part in N, and fetches the weights of one block at a time, and of the next one ahead. A ring sends (N - 1) / N
    of what is fetched or summed."""
    n = load.world_size
    weight, gradient = BYTES[options.weights], BYTES[options.gradients]
    everything = load.trainable + load.shared
    whole = 2 * weight * everything / load.blocks if options.reshard else weight * everything
    fetched = (1 + options.reshard) * load.accumulation * everything + load.accumulation * (load.still + load.shared)
    return Division(1 / n, whole, (fetched * weight + load.trainable * gradient) * (n - 1) / n)


@hookimpl
def dinomx_parallelisms():
    yield Parallelism("fsdp", Fsdp, "dinomx_fsdp.sharded:FullyShard", divide=divide_fsdp)
