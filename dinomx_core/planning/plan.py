"""The plan: everything that is decided before anything is built. `planner` makes it."""

import os
import platform
from collections.abc import Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs

from dinomx_core.declare.discover import Registry
from dinomx_core.declare.facts import (
    BackboneShape,
    DataInfo,
    Frozen,
    HeadShape,
    Preprocessing,
    Request,
    View,
)
from dinomx_core.declare.values import Size
from dinomx_core.planning.cost import Batch, Cost, estimate
from dinomx_core.planning.origin import Origin
from dinomx_core.planning.precision import cpu_has_bf16
from dinomx_core.planning.schedule import Curve
from dinomx_core.planning.spec import RunOptions, RunSpec
from dinomx_core.planning.trained import Trains
from dinomx_core.planning.world import World, started

PACKAGES = ("dinomx", "torch", "transformers", "numpy", "pillow")


@attrs.frozen
class Env:
    """The machine a plan is made for."""

    device: str
    cores: int
    python: str
    versions: dict[str, str]
    world: World | None = None  # the processes that were started, where this is one of several
    gpus: int = 0
    bf16: bool | None = None  # whether the CPU has units for it

    @classmethod
    def here(cls) -> "Env":
        """This machine, found without importing torch."""
        versions = {}
        for package in PACKAGES:
            try:
                versions[package] = metadata.version(package)
            except metadata.PackageNotFoundError:
                versions[package] = "missing"
        cpu_only = versions["torch"].endswith("+cpu")
        gpu = not cpu_only and any(Path(p).exists() for p in ("/proc/driver/nvidia/gpus", "/dev/nvidia0", "/dev/dxg"))
        apple = platform.system() == "Darwin" and platform.machine() == "arm64"
        if hasattr(os, "sched_getaffinity"):
            cores = len(os.sched_getaffinity(0))
        else:
            cores = os.cpu_count() or 1
        gpus = count_gpus() if gpu else 0
        kind = "cuda" if gpu else "mps" if apple else "cpu"
        python = platform.python_version()
        return cls(kind, cores, python, versions, started(os.environ), gpus, cpu_has_bf16())


def count_gpus() -> int:
    """GPUs that a process may use."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return len([name for name in visible.split(",") if name.strip() and name.strip() != "-1"])
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*"))) or 1


@attrs.frozen
class Source:
    """What a config was read from, so that other processes can read it again: its text, what messages call it, settings over it, and
    the command that a model card names."""

    text: str
    place: str
    settings: tuple[str, ...]
    command: str


@attrs.frozen
class Further:
    """A network beside student and teacher: who asks for it ("loss.gram"), and where its weights come from unless from the run itself."""

    owner: str
    network: Frozen
    origin: Origin | None


@attrs.frozen
class Value:
    """One resolved option and where it came from."""

    key: str
    value: Any
    source: str


def within(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The values below a key path, by the rest of their names."""
    return {key[len(prefix) :]: value for key, value in values.items() if key.startswith(prefix)}


def plain(instance: Any, attribute: Any, value: Any) -> Any:
    """A value as JSON takes it."""
    return value.plain if isinstance(value, Size) else str(value) if isinstance(value, Path) else value


@attrs.frozen
class Plan:
    """Everything that is decided before a run. No later stage changes a value."""

    spec: RunSpec
    env: Env
    stage: str
    start: str  # run or checkpoint that weights, heads and teacher are taken over from
    seed: int
    run_dir: Path
    device: str
    steps: int
    batch: Batch
    data: DataInfo
    passes: float
    views: tuple[View, ...]
    preprocessing: Preprocessing
    backbone: BackboneShape
    heads: dict[str, HeadShape]
    requests: tuple[Request, ...]
    origin: Origin | None  # what `start` is
    networks: tuple[Further, ...]
    trains: Trains
    curves: dict[str, Curve]
    lengths: dict[str, int]
    lr_scale: float
    values: tuple[Value, ...]
    warnings: tuple[str, ...]
    source: Source
    registry: Registry = attrs.field(eq=False, repr=False)

    def values_at(self, step: int) -> dict[str, float]:
        """Every scheduled value at a step, by key path (`optimizer.lr`, `loss.dino.weight`)."""
        return {key: curve.at(step) for key, curve in self.curves.items()}

    def shape_of(self, network: str) -> BackboneShape:
        """Sizes of a network's backbone by its name in requests."""
        theirs = next((f.origin for f in self.networks if f.network.name == network and f.origin), None)
        return theirs.backbone if theirs else self.backbone

    def cost_of(self, batch: Batch, run: RunOptions) -> Cost:
        """What a step would cost with another division of the batch and other ways to save memory."""
        parallelism = self.spec.parallelism
        return estimate(
            self.backbone,
            self.heads,
            self.requests,
            {view.name: view for view in self.views},
            batch,
            run,
            self.trains,
            {f.network.name: f.origin.backbone for f in self.networks if f.origin},
            partial(parallelism.component.divide, parallelism.options),
        )

    @property
    def cost(self) -> Cost:
        """What a step costs."""
        return self.cost_of(self.batch, self.spec.run)

    def to_json(self) -> dict[str, Any]:
        """Plain data for `plan.json` and `dinomx plan --json`."""
        skip = attrs.filters.exclude(
            "spec", "source", "registry", "values", "curves", "origin", attrs.fields(Frozen).refresh,
            *(getattr(attrs.fields(BackboneShape), name) for name in ("layout", "tensors")),
        )  # fmt: skip
        result = attrs.asdict(self, filter=skip, value_serializer=plain)
        result["cost"] = {**attrs.asdict(self.cost), "memory_bytes": self.cost.memory_bytes}
        result["tokens"] = {view.name: self.backbone.tokens(view.size) for view in self.views}
        result["schedules"] = {
            key: {**attrs.asdict(curve), "first": curve.at(0), "last": curve.at(self.steps - 1)}
            for key, curve in self.curves.items()
        }
        result["values"] = {value.key: {"value": value.value, "source": value.source} for value in self.values}
        return result


def units_of(plan: Plan) -> str:
    """Units of the numbers of a plan's images, "" where they have none."""
    return plan.data.sampled.units if plan.data.sampled else ""
