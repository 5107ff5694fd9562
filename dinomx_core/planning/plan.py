"""RunSpec + Env -> Plan: every derived number and every cross-field check, before anything is built."""

import os
import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs

from dinomx_core.declare.components import BackboneShape, DataInfo, Draft, HeadShape, Preprocessing, Request, View
from dinomx_core.declare.values import Chosen, Length, Schedule
from dinomx_core.errors import ConfigError, DataError, Problem
from dinomx_core.planning.convert import leaves
from dinomx_core.planning.cost import Cost, estimate
from dinomx_core.planning.document import Document, Path_
from dinomx_core.planning.schedule import Curve, resolve
from dinomx_core.planning.spec import RunSpec

PACKAGES = ("dinomx", "torch", "transformers", "numpy", "pillow")


@attrs.frozen
class Env:
    """The machine a plan is made for."""

    device: str
    cores: int
    python: str
    versions: dict[str, str]

    @classmethod
    def here(cls) -> "Env":
        """This machine, found without importing torch."""
        versions = {}
        for package in PACKAGES:
            try:
                versions[package] = metadata.version(package)
            except metadata.PackageNotFoundError:
                versions[package] = "missing"
        gpu = Path("/proc/driver/nvidia/gpus").exists() or Path("/dev/nvidia0").exists() or Path("/dev/dxg").exists()
        if hasattr(os, "sched_getaffinity"):
            cores = len(os.sched_getaffinity(0))
        else:
            cores = os.cpu_count() or 1
        return cls("cuda" if gpu else "cpu", cores, platform.python_version(), versions)


@attrs.frozen
class Batch:
    """How a step's images are divided: `images` = world_size x accumulation x micro."""

    images: int
    world_size: int
    accumulation: int
    micro: int


@attrs.frozen
class Value:
    """One resolved option and where it came from."""

    key: str
    value: Any
    source: str


@attrs.frozen
class Plan:
    """Everything that is decided before a run. No later stage changes a value."""

    spec: RunSpec
    env: Env
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
    curves: dict[str, Curve]
    lengths: dict[str, int]
    lr_scale: float
    cost: Cost
    values: tuple[Value, ...]
    warnings: tuple[str, ...]
    config_text: str

    def values_at(self, step: int) -> dict[str, float]:
        """Every scheduled value at a step, by key path (`optimizer.lr`, `loss.dino.weight`)."""
        return {key: curve.at(step) for key, curve in self.curves.items()}

    def to_json(self) -> dict[str, Any]:
        """Plain data for `plan.json` and `dinomx plan --json`."""
        skip = attrs.filters.exclude("spec", "config_text", "values", "curves")
        plain = attrs.asdict(self, filter=skip, value_serializer=lambda _i, _a, v: str(v) if isinstance(v, Path) else v)
        plain["tokens"] = {view.name: self.backbone.tokens(view.size) for view in self.views}
        plain["schedules"] = {
            key: {**attrs.asdict(curve), "first": curve.at(0), "last": curve.at(self.steps - 1)}
            for key, curve in self.curves.items()
        }
        plain["values"] = {value.key: {"value": value.value, "source": value.source} for value in self.values}
        return plain


def chosen_parts(value: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Chosen]]:
    """Every component picked anywhere in a spec, slots inside options included."""
    if isinstance(value, Chosen):
        yield path, value
        yield from chosen_parts(value.options, path)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from chosen_parts(inner, (*path, key))
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from chosen_parts(getattr(value, field.name), (*path, field.name))


def typed_fields(spec: RunSpec, kind: type) -> Iterator[tuple[Path_, Any]]:
    """Every option of one type (Schedule, Length) in a spec with its key path."""

    def walk(value: Any, path: Path_) -> Iterator[tuple[Path_, Any]]:
        if isinstance(value, kind):
            yield path, value
        elif isinstance(value, Chosen):
            yield from walk(value.frame, path)
            yield from walk(value.options, path)
        elif isinstance(value, dict):
            for key, inner in value.items():
                yield from walk(inner, (*path, key))
        elif attrs.has(type(value)):
            for field in attrs.fields(type(value)):
                yield from walk(getattr(value, field.name), (*path, field.name))

    yield from walk(tables(spec), ())


def tables(spec: RunSpec) -> dict[str, Any]:
    """The spec under the config's own table names."""
    rename = {"losses": "loss", "heads": "head", "strategies": "strategy"}
    return {rename.get(f.name, f.name): getattr(spec, f.name) for f in attrs.fields(RunSpec)}


class _Planner:
    def __init__(self, spec: RunSpec, document: Document, env: Env):
        self.spec, self.document, self.env = spec, document, env
        self.problems: list[Problem] = []
        self.warnings: list[str] = []

    def refuse(self, message: str, key: str) -> None:
        self.problems.append(Problem(message, key, self.document.place(tuple(key.split(".")))))

    def inspect(self, chosen: Chosen, key: str) -> DataInfo | None:
        try:
            info = chosen.component.inspect(chosen.options)
        except DataError as error:
            self.refuse(str(error), key)
            return None
        self.warnings.extend(f"{key}: {note}" for note in info.notes)
        return info

    def batch(self, world_size: int) -> Batch:
        run = self.spec.run
        parts = world_size * run.accumulation
        if run.batch_size % parts:
            what = f"{world_size} processes x {run.accumulation} accumulated micro-batches"
            near = max(parts, round(run.batch_size / parts) * parts)
            self.refuse(f"{run.batch_size} does not divide over {what}; use {near}", "run.batch_size")
        if run.accumulation > 1:
            micro = run.batch_size // parts
            self.warnings.append(
                f"run.accumulation: each loss sees micro-batches of {micro} images; centres are updated once a step "
                "from all of them, losses that compare images of a batch compare only those of a micro-batch"
            )
        return Batch(run.batch_size, world_size, run.accumulation, max(1, run.batch_size // parts))

    def check_views(self, views: tuple[View, ...], patch: int) -> None:
        for view in views:
            if view.size % patch:
                below, above = view.size // patch * patch, (view.size // patch + 1) * patch
                near = f"{below} or {above}" if below else f"{above}"
                message = f"{view.name} crops of {view.size} px are not a multiple of the patch ({patch} px); use {near}"
                self.refuse(message, "augmentation")
        names = {view.name for view in views if view.count > 0}
        for label, loss in self.spec.losses.items():
            missing = {r.view for r in loss.component.requests(loss.options)} - names
            if missing:
                made = ", ".join(sorted(names)) or "none"
                what = ", ".join(sorted(missing))
                self.refuse(f'needs the view "{what}", which the augmentation does not make (it makes: {made})', f"loss.{label}")
            masked = {view.name for view in views if view.masked}
            for request in loss.component.requests(loss.options):
                if request.masking != "none" and request.view in names - masked:
                    self.refuse(f'needs patch masks of the view "{request.view}", which the augmentation does not make', f"loss.{label}")

    def check_output(self, run_dir: Path) -> None:
        existing = next(p for p in (run_dir, *run_dir.parents) if p.exists())
        if not existing.is_dir():
            self.refuse(f"{existing} is a file, not a folder; choose another", "run.out")
        elif not os.access(existing, os.W_OK | os.X_OK):
            self.refuse(f"{existing} cannot be written to; choose another with run.out or --out", "run.out")

    def curves(self, steps: int, per_pass: float, lr_scale: float) -> dict[str, Curve]:
        curves = {}
        for path, schedule in typed_fields(self.spec, Schedule):
            key = ".".join(path)
            curves[key] = resolve(schedule, steps, per_pass, lr_scale if key == "optimizer.lr" else 1.0)
            if curves[key].warmup > steps:
                written = schedule.warmup if schedule.warmup.unit != "steps" else "its warm-up"
                message = f'{written} is {curves[key].warmup} steps, longer than the run of {steps}; a share such as "10%" always fits'
                self.refuse(message, f"{key}.warmup")
        return curves

    def plan(self, config_text: str) -> Plan:
        spec, run = self.spec, self.spec.run
        world_size = spec.parallelism.component.processes(spec.parallelism.options)  # type: ignore[attr-defined]
        batch = self.batch(world_size)
        data = self.inspect(spec.data, "data") or DataInfo(0, 3)
        if 0 < data.count < run.batch_size:
            self.refuse(f"{run.batch_size} is more than the {data.count} images there are", "run.batch_size")
        for path, chosen in chosen_parts(tables(spec)):
            if chosen.component.kind == "dataset" and path != ("data",):
                info = self.inspect(chosen, ".".join(path))
                if info and data.count and info.channels != data.channels:
                    self.refuse(f"has {info.channels} channels, the training data {data.channels}", ".".join(path))
        per_pass = max(1, data.count) / run.batch_size
        steps = run.steps.steps(0, per_pass)
        if steps < 1:
            self.refuse(f'"{run.steps}" is less than one step', "run.steps")
        augmentation = spec.augmentation
        views = tuple(augmentation.component.views(augmentation.options))  # type: ignore[attr-defined]
        preprocessing = augmentation.component.preprocessing(augmentation.options)  # type: ignore[attr-defined]
        for name, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
            if len(values) not in (1, data.channels):
                self.refuse(f"has {len(values)} values, the images {data.channels} channels; give 1 or {data.channels}", f"augmentation.{name}")
        shape = spec.backbone.component.shape(spec.backbone.options, data.channels, preprocessing.crop)  # type: ignore[attr-defined]
        requests = tuple(dict.fromkeys(r for loss in spec.losses.values() for r in loss.component.requests(loss.options)))  # type: ignore[attr-defined]
        self.check_views(views, shape.patch_size)
        draft = Draft(data, views, shape, steps, run.batch_size)
        for path, chosen in chosen_parts(tables(spec)):
            if chosen.component.check:
                for message in chosen.component.check(chosen.options, draft):
                    self.refuse(message, ".".join(path))
        run_dir = Path(run.out).expanduser() / run.name
        self.check_output(run_dir)
        ratio = run.batch_size / spec.optimizer.scaling_batch
        lr_scale = {"none": 1.0, "linear": ratio, "sqrt": ratio**0.5}[spec.optimizer.scaling]
        curves = self.curves(steps, per_pass, lr_scale)
        lengths = {".".join(path): length.steps(steps, per_pass) for path, length in typed_fields(spec, Length)}
        heads = {label: head.component.shape(head.options, shape.width) for label, head in spec.heads.items()}  # type: ignore[attr-defined]
        if self.problems:
            raise ConfigError(self.problems)
        device = self.env.device if run.device == "auto" else run.device
        if run.precision == "fp16" and device == "cpu":
            self.warnings.append("run.precision: fp16 is slow on most CPUs; bf16 needs no loss scaling")
        cost = estimate(shape, heads, requests, {v.name: v for v in views}, batch.micro, batch.images, run.precision, run.activation_checkpointing)
        return Plan(
            spec, self.env, run_dir, device, steps, batch, data, steps / per_pass, views, preprocessing, shape, heads, requests,
            curves, lengths, lr_scale, cost, tuple(self.values()), tuple(dict.fromkeys(self.warnings)), config_text,
        )  # fmt: skip

    def values(self) -> Iterator[Value]:
        for path, value in leaves(tables(self.spec)):
            written = path in self.document.places
            source = self.document.places[path] if written else "default"
            if not written and any(path[:n] in self.document.places for n in range(len(path) - 1, 1, -1)) and _given(self.document, path):
                source = self.document.place(path)
            yield Value(".".join(path), value, source)


def _given(document: Document, path: Path_) -> bool:
    """Whether the key stands in the document, if only inside an inline table."""
    node: Any = document.data
    for key in path:
        if not isinstance(node, dict) or key not in node:
            return isinstance(node, (int, float)) and key in ("peak", "start", "end")
        node = node[key]
    return True


def make_plan(spec: RunSpec, document: Document, env: Env, config_text: str) -> Plan:
    """Decide everything. Raises ConfigError with every problem found."""
    return _Planner(spec, document, env).plan(config_text)
