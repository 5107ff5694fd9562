"""Options that every parallelism over several processes has, and what the plan works out from them."""

from collections.abc import Callable
from typing import Any, Literal

import attrs

from dinomx_core.declare.values import not_negative, option, positive


def one_or_more(instance: Any, attribute: Any, value: Any) -> None:
    """attrs validator: "auto", or a number above 0."""
    if value != "auto":
        positive(instance, attribute, value)


@attrs.frozen
class Processes:
    """Several processes, each with a share of every step's images. A parallelism whose options derive from this class runs in as many as
    they say, or in those that torchrun or srun has started."""

    processes: int | Literal["auto"] = option(
        "auto",
        'processes on each host that `dinomx run` starts; "auto": one a GPU, one on a CPU. Under torchrun or srun they are there already',
        check=one_or_more,
    )
    hosts: int = option(1, "hosts that run the same command", check=positive)
    address: str = option("", 'where they meet: "HOST:PORT" of one of them, a free port there')
    rendezvous: Literal["c10d", "static"] = option(
        "c10d", "how they meet: c10d numbers the hosts as they come; static takes the numbers that `host` gives"
    )
    host: int = option(-1, "number of this host, from 0, for a static rendezvous")
    patience: float = option(300.0, "seconds that a host waits for the others to come", check=positive)
    restarts: int = option(
        3, "how often to start all processes again from the newest checkpoint when one dies", check=not_negative
    )
    timeout: float = option(1800.0, "seconds that a process waits for another before it gives up", check=positive)
    backend: Literal["auto", "gloo", "nccl"] = option(
        "auto", "what carries tensors between processes; auto: nccl for GPUs, gloo for CPUs"
    )


@attrs.frozen
class Load:
    """Numbers of parameters of a run, by which a parallelism tells what it holds and sends.

    trainable: of the student with its heads and losses; shared: of the backbone, never train, held in common by student and teacher;
    still: of every other network (the teacher and further ones). unit: of the largest block or head. world_size: processes.
    """

    trainable: int
    shared: int
    still: int
    unit: int
    world_size: int
    accumulation: int


@attrs.frozen
class Division:
    """How a parallelism divides a run. held: share of weights, gradients and optimiser state that one process holds; passing: bytes that it
    holds beside them for a moment; sent: bytes that each process sends a step."""

    held: float
    passing: float
    sent: float


Divide = Callable[[Any, Load], Division]


def undivided(options: Any, load: Load) -> Division:
    """One process: it holds everything and sends nothing."""
    return Division(1.0, 0.0, 0.0)
