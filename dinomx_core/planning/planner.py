"""RunSpec + Env -> Plan: every derived number and every cross-field check, before anything is built."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from dinomx_core.declare.discover import Registry
from dinomx_core.declare.facts import BackboneShape, DataInfo, Draft, Preprocessing
from dinomx_core.declare.reading import Sampled
from dinomx_core.declare.values import Chosen, Length, Schedule
from dinomx_core.errors import UNREADABLE, ConfigError, DataError
from dinomx_core.planning.best import check_best
from dinomx_core.planning.cost import Batch
from dinomx_core.planning.deprecated import deprecated
from dinomx_core.planning.document import Document, Path_
from dinomx_core.planning.parallel import world_size_of
from dinomx_core.planning.plan import Env, Plan, Source, Value
from dinomx_core.planning.precision import slow
from dinomx_core.planning.report import Report
from dinomx_core.planning.schedule import Curve, resolve
from dinomx_core.planning.seeds import seed_of
from dinomx_core.planning.spec import RunSpec
from dinomx_core.planning.starts import check_origin, further_networks, origin_of
from dinomx_core.planning.trained import trains_of
from dinomx_core.planning.views import check_networks, check_views, mask
from dinomx_core.planning.walk import chosen_parts, leaves, outer_sets, tables, typed_fields

SHOWN = 3  # files in a message


class _Planner:
    def __init__(
        self, spec: RunSpec, document: Document, env: Env, registry: Registry, stage: str, before: Plan | None
    ):
        self.spec, self.document, self.env, self.registry = spec, document, env, registry
        self.stage, self.before = stage, before
        self.report = Report(spec, document, registry.names("masking"))
        self.refuse, self.warnings = self.report.refuse, self.report.warnings
        self.unreadable: set[Path_] = set()
        self.samples: dict[str, Sampled | None] = {}  # of data sets beside the training's

    def inspect(self, chosen: Chosen, key: str) -> DataInfo | None:
        try:
            info = chosen.component.inspect(chosen.options)
        except UNREADABLE as error:
            self.refuse(str(error), f"{key}.{error.key}" if isinstance(error, DataError) and error.key else key)
            self.unreadable.add(tuple(key.split(".")))
            return None
        self.warnings.extend(f"{key}: {note}" for note in info.notes)
        if lost := len(info.unreadable):
            some = "; ".join(info.unreadable[:SHOWN]) + (f"; and {lost - SHOWN} more" if lost > SHOWN else "")
            files = f"{lost} file{'s' * (lost != 1)}"
            self.warnings.append(f"{key}: {files} left out: {some}")
            share = self.spec.loader.max_unreadable
            if lost > share * (info.count + lost):
                self.refuse(
                    f"{files} cannot be read, beside {info.count} images, more than loader.max_unreadable = {share:g} allows: {some}",
                    key,
                )
        return info

    def others(self, data: DataInfo) -> None:
        """Data sets beside the training's: of the same channels and units, or of some of its channels."""
        for path, chosen in outer_sets(tables(self.spec)):
            if path[0] == "data":
                continue
            key = ".".join(path)
            info = self.inspect(chosen, key)
            if info is None or not data.count:
                continue
            self.samples |= info.samples(key)
            known = bool(data.names) and set(info.names) <= set(data.names)
            if info.channels != data.channels and not (known and info.names):
                self.refuse(f"has {info.channels} channels, the training data {data.channels}", key)
            if info.sampled and data.sampled and info.sampled.units != data.sampled.units:
                theirs, ours = (sampled.units or "none" for sampled in (info.sampled, data.sampled))
                self.refuse(f"its numbers have the units {theirs}, those of the training data {ours}", key)

    def check_channels(self, data: DataInfo, shape: BackboneShape | None) -> None:
        """Images of different channels need a backbone that takes some of them."""
        if shape is None or shape.any_channels:
            return
        options = self.spec.augmentation.options
        if len(data.sets) > 1:
            sizes = ", ".join(str(len(found)) for found in data.sets)
            self.refuse(
                f"holds images of different channels ({sizes} of {data.channels}), and this backbone needs all of them in each; take a "
                f"channel-adaptive one ({', '.join(self.adaptive()) or 'none installed'})",
                "data",
            )
        if getattr(options, "channels", "all") != "all":
            self.refuse(
                f'"{options.channels}" leaves channels out, and this backbone needs all of them; set "all", or take a channel-adaptive one '
                f"({', '.join(self.adaptive()) or 'none installed'})",
                "augmentation.channels",
            )

    def problems(self, chosen: Chosen, draft: Draft) -> Iterator[tuple[str, str]]:
        """What a part's check finds; an intensity has to fit the numbers of every data set, and of each source of a mixture."""
        if chosen.component.kind != "intensity":
            yield from chosen.component.check(chosen.options, draft)
            return
        told = set()
        for place, sampled in {**draft.data.samples("data"), **self.samples}.items():
            seen = attrs.evolve(draft, data=attrs.evolve(draft.data, sampled=sampled))
            for key, message in chosen.component.check(chosen.options, seen):
                if (key, message) not in told:
                    told.add((key, message))
                    yield key, message if place == "data" else f"{place}: {message}"

    def adaptive(self) -> list[str]:
        """Backbones that take some of the channels."""
        return [component.name for component in self.registry.all("backbone") if component.any_channels]

    def batch(self, world_size: int) -> Batch:
        run = self.spec.run
        parts = world_size * run.accumulation
        if run.batch_size < world_size:
            self.refuse(
                f"{run.batch_size} images for {world_size} processes; each needs one at least: enlarge it, or start fewer",
                "run.batch_size",
            )
            return Batch(run.batch_size, world_size, run.accumulation, 1)
        if run.batch_size % parts:
            what = f"{world_size} processes x {run.accumulation} accumulated micro-batches"
            near = max(parts, round(run.batch_size / parts) * parts)
            self.refuse(f"{run.batch_size} does not divide over {what}; use {near}", "run.batch_size")
        if run.accumulation > 1:
            micro = run.batch_size // parts
            self.warnings.append(
                f"run.accumulation: each loss sees micro-batches of {micro} images: what a target keeps is updated once a "
                "step from all of them, but what compares images of a batch (KoLeo, Sinkhorn-Knopp) compares those of a micro-batch"
            )
        return Batch(run.batch_size, world_size, run.accumulation, max(1, run.batch_size // parts))

    def backbone(self, data: DataInfo, preprocessing: Preprocessing) -> BackboneShape | None:
        chosen = self.spec.backbone
        try:
            shape = chosen.component.shape(chosen.options, data.channels, max(preprocessing.crop))
        except UNREADABLE as error:
            self.refuse(
                str(error), f"backbone.{error.key}" if isinstance(error, DataError) and error.key else "backbone"
            )
            return None
        if shape.statistics and shape.statistics != (preprocessing.mean, preprocessing.std):
            self.warnings.append(
                f"augmentation.mean, augmentation.std: {list(preprocessing.mean)} and {list(preprocessing.std)}, but the weights "
                f"were trained with {list(shape.statistics[0])} and {list(shape.statistics[1])}"
            )
        if (shape.warm or self.spec.run.start) and not self.before and not self.spec.evaluate:
            self.warnings.append(
                f'backbone: starts from "{shape.warm or self.spec.run.start}" and no [evaluate.NAME] measures it: a run that makes the '
                "weights worse goes unseen"
            )
        return shape

    def check_output(self, run_dir: Path) -> None:
        existing = next(p for p in (run_dir, *run_dir.parents) if p.exists())
        if not existing.is_dir():
            self.refuse(f"{existing} is a file, not a folder; choose another", "run.out")
            return
        try:
            tempfile.TemporaryFile(dir=existing).close()
        except OSError:
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

    def plan(self, source: Source) -> Plan:
        spec, run = self.spec, self.spec.run
        device = self.env.device if run.device == "auto" else run.device
        batch = self.batch(world_size_of(self.report, self.env, device, self.before))
        data = self.inspect(spec.data, "data") or DataInfo(0, 3)
        if 0 < data.count < run.batch_size:
            self.refuse(f"{run.batch_size} is more than the {data.count} images there are", "run.batch_size")
        self.others(data)
        intensity = spec.intensity
        data = attrs.evolve(data, channels=intensity.component.channels(intensity.options, data.channels))
        per_pass = max(1, data.count) / run.batch_size
        steps = run.steps.steps(0, per_pass)
        if steps < 1:
            self.refuse(f'"{run.steps}" is less than one step', "run.steps")
        augmentation = spec.augmentation
        if not intensity.component.bounded(intensity.options) and not augmentation.component.any_numbers(
            augmentation.options
        ):
            self.refuse(
                f'its changes of colour are for pixels over 0..1, and the intensity "{intensity.component.name}" gives others; take a '
                "domain's augmentation (ct, mri, microscopy), or set jitter = 0.0 and solarize = [0.0]",
                "augmentation",
            )
        views = mask(self.report, tuple(augmentation.component.views(augmentation.options)))
        preprocessing = augmentation.component.preprocessing(augmentation.options)
        wanted = "1" if data.channels == 1 else f"1 or {data.channels}"
        for name, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
            if len(values) not in (1, data.channels):
                self.refuse(
                    f"has {len(values)} values, the images {data.channels} channels; give {wanted}",
                    f"augmentation.{name}",
                )
        shape = self.backbone(data, preprocessing)
        self.check_channels(data, shape)
        requests = tuple(
            dict.fromkeys(r for loss in spec.losses.values() for r in loss.component.requests(loss.options))
        )
        check_views(self.report, views, shape)
        origin = origin_of(self.report, self.before, self.registry)
        if origin:
            check_origin(self.report, self.before, origin, shape)
        networks = further_networks(self.report, self.registry, shape, origin, max(preprocessing.crop))
        check_networks(self.report, views, shape, networks)
        draft = Draft(data, views, shape, steps, run.batch_size, device)
        for path, chosen in chosen_parts(tables(spec)):
            if chosen.component.check:
                if any(broken[: len(path)] == path for broken in self.unreadable):
                    continue  # its check would stumble over the same missing data
                for key, message in self.problems(chosen, draft):
                    self.refuse(message, ".".join((*path, *([key] if key else []))))
        for label, strategy in spec.strategies.items():
            if strategy.component is spec.teacher.component:
                self.refuse("supplies the teacher; it belongs into the table [teacher]", f"strategy.{label}")
        trains = trains_of(self.report, shape) if shape else None
        if run.frozen_weights == "bf16" and run.precision != "bf16":
            self.refuse(f'"bf16" needs run.precision = "bf16", not "{run.precision}"', "run.frozen_weights")
        elif run.frozen_weights == "bf16" and trains and shape and shape.layout and not (trains.shared or networks):
            self.refuse("nothing is frozen, and there is no further network; leave it out", "run.frozen_weights")
        if run.recompute != "none" and shape and run.recompute_every > shape.depth:
            self.refuse(
                f"{run.recompute_every}, but there are {shape.depth} blocks; nothing would be recomputed",
                "run.recompute_every",
            )
        if run.recompute == "mlp" and shape and shape.layout and not shape.layout.mlp:
            self.refuse('this backbone\'s blocks have no MLP of their own; take "blocks"', "run.recompute")
        check_best(self.report)
        run_dir = Path(os.path.expanduser(run.out)) / run.name / self.stage
        self.check_output(run_dir)
        ratio = run.batch_size / spec.optimizer.scaling_batch
        lr_scale = {"none": 1.0, "linear": ratio, "sqrt": ratio**0.5}[spec.optimizer.scaling]
        curves = self.curves(steps, per_pass, lr_scale)
        lengths = {".".join(path): length.steps(steps, per_pass) for path, length in typed_fields(spec, Length)}
        if self.report.problems or shape is None or trains is None:
            raise ConfigError(list(dict.fromkeys(self.report.problems)))
        heads = {label: head.component.shape(head.options, shape.width) for label, head in spec.heads.items()}
        self.warnings.extend(deprecated(spec, self.document, self.registry))
        self.warnings.extend(slow(run.precision, device, self.env.bf16))
        start = str(self.before.run_dir) if self.before else os.path.expanduser(run.start)
        seed = seed_of(run.seed, "stage", self.stage) if self.stage else run.seed
        return Plan(
            spec, self.env, self.stage, start, seed, run_dir, device, steps, batch, data, steps / per_pass, views, preprocessing,
            shape, heads, requests, origin, networks, trains, curves, lengths, lr_scale, tuple(self.values()),
            tuple(dict.fromkeys(self.warnings)), source, self.registry,
        )  # fmt: skip

    def values(self) -> Iterator[Value]:
        for path, value in leaves(tables(self.spec)):
            written = path in self.document.places
            source = self.document.places[path] if written else "default"
            if not written and _given(self.document, path):  # in an inline table, or in a dict
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


def make_plan(
    spec: RunSpec,
    document: Document,
    env: Env,
    registry: Registry,
    source: Source,
    stage: str = "",
    before: Plan | None = None,
) -> Plan:
    """Decide everything. Raises ConfigError with every problem found. `before`: the
    stage whose weights this one takes over."""
    return _Planner(spec, document, env, registry, stage, before).plan(source)
