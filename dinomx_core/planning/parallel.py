"""How many processes a run has, and whether they can be: checks that need neither torch nor the other processes."""

import re

from dinomx_core.declare.processes import Processes
from dinomx_core.planning.plan import Env, Plan
from dinomx_core.planning.report import Report

ADDRESS = re.compile(r"[^:\s]+:\d{1,5}|\[[^\]\s]+\]:\d{1,5}")


def world_size_of(report: Report, env: Env, device: str, before: Plan | None) -> int:
    """Processes of all hosts. Refuses what does not go together."""
    chosen, world = report.spec.parallelism, env.world
    options, name = chosen.options, chosen.component.name
    if not isinstance(options, Processes):
        if world and world.size > 1:
            report.refuse(
                f'{world.words}, but "{name}" is one; set name = "ddp" or "fsdp", or start one',
                "parallelism.name",
            )
        return 1
    check_meeting(report, options, bool(world))
    if device == "mps":
        report.refuse(
            'Apple\'s GPU runs one process; set run.device or parallelism.name = "single"', "parallelism.name"
        )
    if options.backend == "gloo" and device == "cuda":
        report.refuse(
            '"gloo" carries tensors of CPUs, and the run is on GPUs; take "auto" or "nccl"', "parallelism.backend"
        )
    if options.backend == "nccl" and device != "cuda":
        report.refuse(
            f'"nccl" carries tensors of GPUs, and the run is on "{device}"; take "auto"', "parallelism.backend"
        )
    here = options.processes if isinstance(options.processes, int) else max(1, env.gpus) if device == "cuda" else 1
    if device == "cuda" and env.gpus and max(here, world.local_size if world else 0) > env.gpus:
        report.refuse(f"{here} processes, but there are {env.gpus} GPUs; each needs its own", "parallelism.processes")
    size = here * options.hosts
    if world:
        if options.processes != "auto" and size != world.size and not world.imagined:
            hosts = f" x {options.hosts} hosts" if options.hosts > 1 else ""
            report.refuse(
                f'{here}{hosts}, but {world.words}; leave it at "auto"',
                "parallelism.processes",
            )
        size = world.size
    if before and before.batch.world_size != size:
        report.refuse(
            f"{size} processes, but the stage before has {before.batch.world_size}; all stages of a run have as many",
            "parallelism",
        )
    return size


def check_meeting(report: Report, options: Processes, started: bool) -> None:
    """Refuse hosts that could not find each other. Under torchrun or srun they have."""
    if options.address and not ADDRESS.fullmatch(options.address):
        report.refuse(f'expected "HOST:PORT", got "{options.address}"', "parallelism.address")
    if options.hosts == 1 or started:
        return
    if not options.address:
        report.refuse(
            f'{options.hosts} hosts need a place to meet: "HOST:PORT" of one of them, the same on all',
            "parallelism.address",
        )
    if options.rendezvous == "static" and not 0 <= options.host < options.hosts:
        given = "is missing" if options.host < 0 else f"is {options.host}"
        report.refuse(
            f"{given}; a static rendezvous needs each host's number, 0 to {options.hosts - 1}, for example "
            f"--set parallelism.host=0 on the one whose address it is",
            "parallelism.host",
        )
