"""Machines that a plan can be made for without being there: what the data sheets say of GPUs, and estimates that follow."""

import re

import attrs

from dinomx_core.planning.plan import Env, Plan
from dinomx_core.planning.world import IMAGINED, World

BUSY = 0.4  # share of a GPU's peak that training of transformers usually reaches
UNITS = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


@attrs.frozen
class Device:
    """A GPU: memory in bytes, peak FLOP/s of dense bf16 and float32 (TF32) products, bytes a second to the GPUs of its host and, with one
    network card each, to those of others, each way; GPUs a host."""

    memory: float
    bf16: float
    float32: float
    inside: float
    outside: float
    a_host: int = 8


DEVICES = {  # from the makers' data sheets
    "a100-40": Device(40e9, 312e12, 156e12, 300e9, 25e9),
    "a100": Device(80e9, 312e12, 156e12, 300e9, 25e9),
    "h100": Device(80e9, 989e12, 495e12, 450e9, 50e9),
    "h200": Device(141e9, 989e12, 495e12, 450e9, 50e9),
    "b200": Device(180e9, 2250e12, 1125e12, 900e9, 50e9),
    "l40s": Device(48e9, 362e12, 183e12, 32e9, 12.5e9),
    "rtx4090": Device(24e9, 165e12, 83e12, 32e9, 1.25e9, 4),
}


def parse_bytes(text: str) -> float:
    """ "24GiB" -> bytes. Raises ValueError when it is no such amount."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKMGT]i?B|B)\s*", text)
    if not match or match[2] not in UNITS or not float(match[1]):
        raise ValueError(f'expected an amount of memory such as "24GiB" or "80GB", got "{text}"')
    return float(match[1]) * UNITS[match[2]]


def elsewhere(here: Env, world_size: int, device: Device | None) -> Env:
    """This machine's environment, with other processes and another device."""
    a_host = device.a_host if device else world_size
    local = min(world_size, a_host)
    world = World(world_size, 0, 0, local, IMAGINED, "") if world_size else here.world
    kind, gpus = ("cuda", a_host) if device else (here.device, max(here.gpus, local))
    return attrs.evolve(here, device=kind, gpus=gpus, world=world)


@attrs.frozen
class Forecast:
    """Seconds of a step that a process computes and sends, and the share of the longer way that sending is where none of it overlaps."""

    computing: float
    sending: float

    @property
    def share(self) -> float:
        """Of the time, at the most."""
        return self.sending / (self.computing + self.sending)


def forecast(plan: Plan, device: Device) -> Forecast:
    """How long a step takes on a device."""
    world, cost = plan.batch.world_size, plan.cost
    peak = device.float32 if plan.spec.run.precision == "float32" else device.bf16
    rate = device.inside if world <= device.a_host else device.outside
    return Forecast(cost.flops / world / (BUSY * peak), cost.sent_bytes / rate)
