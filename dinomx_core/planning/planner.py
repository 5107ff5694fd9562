"""RunSpec + Env -> Plan: every derived number and every cross-field check, before anything is built."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from dinomx_core.declare.components import BackboneShape, DataInfo, Draft, Frozen, Preprocessing, View
from dinomx_core.declare.discover import Registry
from dinomx_core.declare.values import Chosen, Length, Schedule
from dinomx_core.errors import UNREADABLE, ConfigError, DataError, Problem
from dinomx_core.planning.cost import estimate
from dinomx_core.planning.document import Document, Path_
from dinomx_core.planning.origin import Origin, checkpoint_of, describe, misfits, source_shape
from dinomx_core.planning.plan import Batch, Env, Plan, Value
from dinomx_core.planning.schedule import Curve, resolve
from dinomx_core.planning.seeds import seed_of
from dinomx_core.planning.spec import RunSpec
from dinomx_core.planning.walk import chosen_parts, leaves, tables, typed_fields


class _Planner:
    def __init__(
        self, spec: RunSpec, document: Document, env: Env, registry: Registry, stage: str, before: Plan | None
    ):
        self.spec, self.document, self.env, self.registry = spec, document, env, registry
        self.stage, self.before = stage, before
        self.maskings = registry.names("masking")
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self.unreadable: set[Path_] = set()

    def refuse(self, message: str, key: str) -> None:
        self.problems.append(Problem(message, key, self.document.place(tuple(key.split(".")))))

    def inspect(self, chosen: Chosen, key: str) -> DataInfo | None:
        try:
            info = chosen.component.inspect(chosen.options)
        except UNREADABLE as error:
            self.refuse(str(error), f"{key}.{error.key}" if isinstance(error, DataError) and error.key else key)
            self.unreadable.add(tuple(key.split(".")))
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
                f"run.accumulation: each loss sees micro-batches of {micro} images: what a target keeps is updated once a "
                "step from all of them, but a loss that compares images of a batch compares those of a micro-batch"
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

    def check_views(self, views: tuple[View, ...], shape: BackboneShape | None) -> None:
        patch, depth = (shape.patch_size, shape.depth) if shape else (1, sys.maxsize)
        for view in views:
            for size in (view.size, *view.others):
                if side := next((side for side in size if side % patch), 0):
                    below, above = side // patch * patch, (side // patch + 1) * patch
                    near = f"{below} or {above}" if below else f"{above}"
                    message = f"{view.name} crops of {size} px are not a multiple of the patch ({patch} px); use {near}"
                    self.refuse(message, f"augmentation.{view.key}" if view.key else "augmentation")
        names = {view.name for view in views if view.count > 0}
        for label, loss in self.spec.losses.items():
            own = {network.name for network in loss.component.networks(loss.options)}
            for request in loss.component.requests(loss.options):
                if request.network not in ("student", "teacher", *own):
                    self.refuse(
                        f'asks for the network "{request.network}", which it does not declare; there are student and teacher',
                        f"loss.{label}",
                    )
                if request.layers > depth:
                    self.refuse(
                        f"asks for the last {request.layers} blocks of a backbone that has {depth}", f"loss.{label}"
                    )
            missing = {r.view for r in loss.component.requests(loss.options)} - names
            if missing:
                made = ", ".join(sorted(names)) or "none"
                what = ", ".join(sorted(missing))
                self.refuse(
                    f'needs the view "{what}", which the augmentation does not make (it makes: {made})', f"loss.{label}"
                )
            masked = {view.name for view in views if view.masked}
            for request in loss.component.requests(loss.options):
                if request.masking == "replace" and shape and not shape.masks:
                    self.refuse(
                        f"has no mask token, which loss.{label} needs; set backbone.mask_token = true",
                        "backbone.mask_token",
                    )
                if (request.masking != "none" or request.select == "masked") and request.view in names - masked:
                    remedy = f"add [masking] with a name ({', '.join(self.maskings) or 'none installed'})"
                    if self.spec.masking:
                        remedy = f'[masking] masks "{", ".join(sorted(masked)) or "nothing"}"; a config masks one view'
                    self.refuse(
                        f'needs patch masks of the view "{request.view}", which nobody makes; {remedy}', f"loss.{label}"
                    )
        for name in sorted(
            names - {r.view for loss in self.spec.losses.values() for r in loss.component.requests(loss.options)}
        ):
            self.warnings.append(f'augmentation: makes the view "{name}", which no loss asks for')
        for name in sorted(masked):
            asked = {
                (r.masking, label)
                for label, loss in self.spec.losses.items()
                for r in loss.component.requests(loss.options)
                if (r.network, r.view) == ("student", name)
            }
            if len({how for how, _ in asked}) > 1:
                who = ", ".join(sorted(f'loss.{label} ("{how}")' for how, label in asked))
                self.warnings.append(
                    f'masking: the student sees the view "{name}" masked and unmasked, a forward pass each: {who}'
                )

    def mask(self, views: tuple[View, ...]) -> tuple[View, ...]:
        """The views with the one masked that [masking] says."""
        chosen = self.spec.masking
        if chosen is None:
            return views
        name = chosen.component.view(chosen.options)
        if name not in {view.name for view in views}:
            made = ", ".join(view.name for view in views)
            self.refuse(f'masks the view "{name}", which the augmentation does not make (it makes: {made})', "masking")
        return tuple(attrs.evolve(view, masked=True) if view.name == name else view for view in views)

    def origin(self) -> Origin | None:
        """What the run starts from where that is the stage before it or another run."""
        before, start = self.before, self.spec.run.start
        if before is not None:
            for key, ours, theirs in (
                ("run.start", start, before.spec.run.start),
                ("backbone.weights", weights_of(self.spec), weights_of(before.spec)),
            ):
                if ours != theirs:
                    self.refuse(f'"{ours}", but a stage starts from the one before it; leave it out', key)
            return Origin(f'the stage "{before.stage}"', before.backbone, before.heads)
        if not start:
            return None
        try:
            place, notes = checkpoint_of(Path(os.path.expanduser(start)))
            self.warnings.extend(f"run.start: {note}" for note in notes)
            return describe(place, self.registry)
        except DataError as error:
            self.refuse(str(error), "run.start")
            return None

    def check_origin(self, origin: Origin, shape: BackboneShape | None) -> None:
        if shape is None:
            return
        if shape.warm and self.before is None:
            self.refuse(
                f'starts from "{shape.warm}", and run.start names another start; leave one out', "backbone.weights"
            )
        known = {field.name for field in attrs.fields(type(self.spec.backbone.options))}
        for name, message in misfits(origin, shape):
            self.refuse(
                f"{message}; weights that are taken over keep their sizes",
                f"backbone.{name}" if name in known else "backbone",
            )
        for label, head in self.spec.heads.items():
            theirs, ours = origin.heads.get(label), head.component.shape(head.options, shape.width)
            if theirs and theirs.outputs != ours.outputs:
                self.refuse(
                    f"{ours.outputs} prototypes, but {origin.place} has {theirs.outputs}; a head that is taken over keeps its sizes",
                    f"head.{label}.prototypes",
                )
            elif theirs and theirs.parameters != ours.parameters:
                self.refuse(
                    f"{ours.parameters} parameters, but {origin.place} has {theirs.parameters}; a head that is taken over keeps its "
                    "sizes",
                    f"head.{label}",
                )

    def check_source(self, network: Frozen, shape: BackboneShape | None, key: str) -> None:
        """Whether a further network's source is there and fits."""
        try:
            theirs = source_shape(network.source, self.spec.backbone, shape, self.registry)
        except UNREADABLE as error:
            at = error.key if isinstance(error, DataError) and error.key != "weights" else ""
            self.refuse(f"{at}: {error}" if at else str(error), key)
            return
        for _, message in misfits(Origin(f'"{network.source}"', theirs, {}), shape) if shape else ():
            self.refuse(message, key)

    def frozen(self, shape: BackboneShape | None, origin: Origin | None) -> dict[str, Frozen]:
        """Further networks by the label of the loss that asks for them. Refuses those that have nowhere to come from."""
        found: dict[str, Frozen] = {}
        for label, loss in self.spec.losses.items():
            for network in loss.component.networks(loss.options):
                key = f"loss.{label}.{network.key}" if network.key else f"loss.{label}"
                if network.name in ("student", "teacher"):
                    self.refuse(f'asks for a further network called "{network.name}", which there is', key)
                if network.name in {other.name for other in found.values()}:
                    self.refuse(
                        f'asks for a further network "{network.name}", as another loss does; give each a name', key
                    )
                if network.source != "start":
                    self.check_source(network, shape, key)
                elif shape and not shape.warm and not origin:
                    self.refuse(
                        f'the network "{network.name}" is the teacher as the run starts, and this run starts from random '
                        "weights; name a run, a checkpoint or a model folder, or start from weights (backbone.weights, run.start)",
                        key,
                    )
                found[label] = network
        return found

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

    def plan(self, config_text: str, command: str) -> Plan:
        spec, run = self.spec, self.spec.run
        world_size = spec.parallelism.component.processes(spec.parallelism.options)
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
        views = self.mask(tuple(augmentation.component.views(augmentation.options)))
        preprocessing = augmentation.component.preprocessing(augmentation.options)
        for name, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
            if len(values) not in (1, data.channels):
                self.refuse(
                    f"has {len(values)} values, the images {data.channels} channels; give 1 or {data.channels}",
                    f"augmentation.{name}",
                )
        shape = self.backbone(data, preprocessing)
        requests = tuple(
            dict.fromkeys(r for loss in spec.losses.values() for r in loss.component.requests(loss.options))
        )
        self.check_views(views, shape)
        origin = self.origin()
        if origin:
            self.check_origin(origin, shape)
        frozen = self.frozen(shape, origin)
        draft = Draft(data, views, shape, steps, run.batch_size)
        for path, chosen in chosen_parts(tables(spec)):
            if chosen.component.check:
                if any(broken[: len(path)] == path for broken in self.unreadable):
                    continue  # its check would stumble over the same missing data
                for key, message in chosen.component.check(chosen.options, draft):
                    self.refuse(message, ".".join((*path, *([key] if key else []))))
        for label, strategy in spec.strategies.items():
            if strategy.component is spec.teacher.component:
                self.refuse("supplies the teacher; it belongs into the table [teacher]", f"strategy.{label}")
        best = spec.checkpoint.keep_best.partition("/")[0]
        if best and best not in spec.evaluate:
            there = ", ".join(spec.evaluate) or "none"
            self.refuse(f'no evaluation is called "{best}"; there are: {there}', "checkpoint.keep_best")
        run_dir = Path(os.path.expanduser(run.out)) / run.name / self.stage
        self.check_output(run_dir)
        ratio = run.batch_size / spec.optimizer.scaling_batch
        lr_scale = {"none": 1.0, "linear": ratio, "sqrt": ratio**0.5}[spec.optimizer.scaling]
        curves = self.curves(steps, per_pass, lr_scale)
        lengths = {".".join(path): length.steps(steps, per_pass) for path, length in typed_fields(spec, Length)}
        if self.problems or shape is None:
            raise ConfigError(list(dict.fromkeys(self.problems)))
        heads = {label: head.component.shape(head.options, shape.width) for label, head in spec.heads.items()}
        device = self.env.device if run.device == "auto" else run.device
        if run.precision == "fp16" and device == "cpu":
            self.warnings.append("run.precision: fp16 is slow on most CPUs; bf16 needs no loss scaling")
        cost = estimate(
            shape,
            heads,
            requests,
            {v.name: v for v in views},
            batch.micro,
            batch.images,
            run.precision,
            run.activation_checkpointing,
        )
        start = str(self.before.run_dir) if self.before else os.path.expanduser(run.start)
        seed = seed_of(run.seed, "stage", self.stage) if self.stage else run.seed
        return Plan(
            spec, self.env, self.stage, start, seed, run_dir, device, steps, batch, data, steps / per_pass, views, preprocessing,
            shape, heads, requests, frozen, curves, lengths, lr_scale, cost, tuple(self.values()),
            tuple(dict.fromkeys(self.warnings)), config_text, command,
        )  # fmt: skip

    def values(self) -> Iterator[Value]:
        for path, value in leaves(tables(self.spec)):
            written = path in self.document.places
            source = self.document.places[path] if written else "default"
            if not written and _given(self.document, path):  # in an inline table, or in a dict
                source = self.document.place(path)
            yield Value(".".join(path), value, source)


def weights_of(spec: RunSpec) -> str:
    """What the backbone starts from, where it can."""
    return getattr(spec.backbone.options, "weights", "")


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
    config_text: str,
    command: str,
    stage: str = "",
    before: Plan | None = None,
) -> Plan:
    """Decide everything. Raises ConfigError with every problem found. `command` is what the run's model card names; `before`: the
    stage whose weights this one takes over."""
    return _Planner(spec, document, env, registry, stage, before).plan(config_text, command)
