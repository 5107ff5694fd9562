"""The loop. It reads top to bottom and knows no method, no strategy and no backend by name."""

import contextlib
import math
import os
import time
from collections.abc import Generator, Iterator
from statistics import fmean
from typing import Any

import attrs
import torch

from dinomx_core.artifacts import RunFolder
from dinomx_core.errors import ConfigError, DinomxError, Problem, Stopped, TrainingError
from dinomx_core.planning.fit import advice
from dinomx_core.planning.plan import within
from dinomx_core.planning.seeds import seed_of
from dinomx_core.progress import Progress
from dinomx_core.training.build import Parts, copy_teacher
from dinomx_core.training.checkpoint import save_best, save_checkpoint
from dinomx_core.training.data import Masks, MicroBatches, TrainingImages, Unreadable, make_loader
from dinomx_core.training.evaluation import evaluate
from dinomx_core.training.flow import Views
from dinomx_core.training.guide import Guide, make_guide, refresh
from dinomx_core.training.health import Health, Verdict
from dinomx_core.training.report.record import Record
from dinomx_core.training.stopping import StopRequest

PLACED = "placed/"  # begins names of shares of crops, which are 0 where a process does not name them
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def train(
    parts: Parts, folder: RunFolder, progress: Progress, stop: StopRequest, first_step: int, record: Record
) -> None:
    """Train from `first_step` to the plan's last, saving as the plan says. Every process of the run does so together.

    Raises Stopped after saving when told to stop, TrainingError when the run cannot go on.
    """
    plan, spec = parts.plan, parts.plan.spec
    guide = make_guide(parts, folder)
    if guide is not None:
        guide.check(first_step)
        if parts.parallelism.rank == 0:
            guide.restart(first_step)
        parts.parallelism.barrier()
    images = make_images(parts, guide)
    batches = MicroBatches(plan.batch, parts.parallelism.rank, first_step, plan.steps)
    loader = make_loader(images, batches, spec.loader, pin=parts.device.type == "cuda")
    kind = torch.float64 if spec.run.precision == "float64" else torch.float32
    unreadable = Unreadable(folder, plan.data.count, spec.loader.max_unreadable, progress.note)
    health = recall(parts, folder, first_step)
    said: set[str] = set()
    with contextlib.closing(iter_views(loader, parts.device, kind)) as stream:
        for step in range(first_step, plan.steps):
            # once in a while: measure the teacher, before this step changes anything
            tell(parts, folder, progress, evaluate_due(parts, folder, progress, health, unreadable, step))

            record.look(step)  # for the report

            if guide is not None:  # for crops of later steps: where the teacher looks
                refresh(guide, parts, folder, step, unreadable.evaluated)

            # the step
            started = time.perf_counter()
            try:
                row, told = train_step(parts, stream, step, stop.reason)
            except RuntimeError as error:
                raise (out_of_memory(parts, step, error) or error) from None
            row["seconds"] = time.perf_counter() - started
            row["images_per_second"] = plan.batch.images / row["seconds"]

            # say and write what happened
            folder.write("metrics", row)
            progress.step(row)
            unreadable.add(told.unreadable)
            tell(parts, folder, progress, health.step(row))
            for name, note in notes(parts, row):
                if name not in said:
                    said.add(name)
                    progress.note(f"step {step}  {note}")

            # once in a while, and when told to stop: save
            done, reason = step + 1, told.stop if parts.parallelism.world_size > 1 else stop.reason
            if reason or done == plan.steps or is_due(done, plan.lengths["checkpoint.every"]):
                check_finite(parts, done)
                save_checkpoint(parts, folder.checkpoints, done)
            if reason and done < plan.steps:
                raise Stopped(f"{reason} after step {done} of {plan.steps}; saved, and `--resume` goes on from there")
    tell(parts, folder, progress, evaluate_due(parts, folder, progress, health, unreadable, plan.steps))
    record.look(plan.steps)


def make_images(parts: Parts, guide: Guide | None = None) -> TrainingImages:
    """The endless stream of training samples."""
    plan, spec = parts.plan, parts.plan.spec
    masks = None
    if spec.masking and parts.masking:
        view = spec.masking.component.view(spec.masking.options)
        masks = Masks(parts.masking, view, plan.backbone.patch_size, plan.batch.images, plan.backbone.channel_tokens)
    return TrainingImages(
        parts.data, parts.augmentation, plan.seed, spec.loader.shuffle, plan.batch.images, parts.intensity,
        plan.data.parts, masks, guide,
    )  # fmt: skip


def check_finite(parts: Parts, done: int) -> None:
    """Raise TrainingError where a step left weights that are not finite: they must not take a good checkpoint's place."""
    ours = (parts.parallelism.part(parameter).tensor for parameter in parts.student.parameters())
    if not all(parts.parallelism.collect(all(bool(torch.isfinite(tensor).all()) for tensor in ours))):
        raise TrainingError(
            f"step {done - 1}: it left weights that are not finite; lower optimizer.lr, lengthen its warm-up, or train in float32"
        )


def is_due(step: int, every: int) -> bool:
    """Whether a step is a multiple of a stretch, which is one step at the least."""
    return step % max(1, every) == 0


def recall(parts: Parts, folder: RunFolder, first_step: int) -> Health:
    """Health as it was at `first_step`, from the rows that the run has written."""
    health = Health(parts.plan, warm=bool(parts.plan.backbone.warm or parts.plan.start))
    if first_step:
        for row in folder.rows("evaluations"):
            health.evaluated(row["step"], {k: v for k, v in row.items() if k not in ("step", "seconds")})
        for row in folder.rows("metrics"):
            health.step(row)
    return health


def tell(parts: Parts, folder: RunFolder, progress: Progress, verdicts: list[Verdict]) -> None:
    """Write and show verdicts. Raises TrainingError at a fatal one where the config says so."""
    for verdict in verdicts:
        folder.write("health", attrs.asdict(verdict))
        progress.note(f"step {verdict.step}  health: {verdict}")
        if verdict.fatal and parts.plan.spec.health.stop:
            raise TrainingError(f"step {verdict.step}: {verdict} (health.stop is true)")


def iter_views(
    loader: Any, device: torch.device, kind: torch.dtype = torch.float32
) -> Generator[tuple[Views, float], None, None]:
    """Batches on the device, each with the seconds it was waited for."""
    batches = iter(loader)
    while True:
        started = time.perf_counter()
        try:
            views = next(batches)
        except StopIteration:
            return
        if isinstance(views, DinomxError):
            raise views
        yield views.to(device, kind), time.perf_counter() - started


def out_of_memory(parts: Parts, step: int, error: RuntimeError) -> TrainingError | None:
    """What to say where an error is that memory ran out, or None."""
    first = str(error).strip().partition("\n")[0]
    if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in first:
        return None
    if parts.device.type == "cuda":
        memory = torch.cuda.mem_get_info(parts.device)[1]
    else:
        here = parts.plan.env.world.local_size if parts.plan.env.world else 1
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // here
    return TrainingError(f"step {step}: out of memory ({first}); {advice(parts.plan, memory)}")


@attrs.frozen
class Told:
    """What the processes tell each other of a step: means of their metrics, images that others stand in for, and why to stop."""

    metrics: dict[str, float]
    unreadable: tuple[str, ...]
    stop: str


def share(parts: Parts, told: Told) -> Told:
    """What all processes tell, as one."""
    everyone = parts.parallelism.collect(told)
    if len(everyone) == 1:
        return told
    metrics = {}
    for name in dict.fromkeys(name for one in everyone for name in one.metrics):
        said = [one.metrics.get(name, 0.0 if name.startswith(PLACED) else None) for one in everyone]
        metrics[name] = fmean(value for value in said if value is not None)
    faults = tuple(fault for one in everyone for fault in one.unreadable)
    return Told(metrics, faults, next((one.stop for one in everyone if one.stop), ""))


def train_step(
    parts: Parts, stream: Iterator[tuple[Views, float]], step: int, stop: str = ""
) -> tuple[dict[str, Any], Told]:
    """One optimisation step: its micro-batches forward and backward, then optimiser, losses' state and teacher. Returns its row, and
    what the processes told each other; `stop`: why this one is to stop."""
    plan = parts.plan
    values = plan.values_at(step)
    for label, strategy in parts.strategies.items():
        strategy.before_step(parts.student, step, within(plan.lengths, options_of(label)))
    scoped = {label: within(values, f"loss.{label}.") for label in parts.losses}
    watch = is_due(step + 1, plan.lengths["health.every"])
    waited = 0.0
    sums: dict[str, float] = {}
    faults: list[str] = []
    for part in range(plan.batch.accumulation):
        views, seconds = next(stream)
        waited += seconds
        faults += views.unreadable
        placed = {f"{PLACED}{word}": share for word, share in views.placed.items()}
        metrics = {**forward_backward(parts, views, scoped, step, part, watch), **placed}
        add_metrics(sums, metrics, plan.batch.accumulation)
    told = share(parts, Told(sums, tuple(faults), stop))
    metrics = told.metrics
    if not math.isfinite(metrics["loss"]):
        which = ", ".join(f"{name} = {value}" for name, value in metrics.items() if name.startswith("loss"))
        raise TrainingError(
            f"step {step}: the loss is not finite ({which}); lower optimizer.lr, lengthen its warm-up, or train in float32"
        )
    lr, weight_decay = values["optimizer.lr"], values["optimizer.weight_decay"]
    norm = parts.optimizer.step(step, lr, weight_decay, values["optimizer.backbone_lr"])
    for loss in parts.losses.values():
        loss.after_step(parts.parallelism)
    for label, strategy in parts.strategies.items():
        strategy.after_step(parts.teacher, within(values, options_of(label)))
    for further in plan.networks:
        if further.network.refresh(step + 1, within(plan.lengths, f"{further.owner}.")):
            copy_teacher(parts, further.network.name)
    return {
        "step": step,
        **metrics,
        "lr": lr,
        "weight_decay": weight_decay,
        "gradient_norm": norm,
        "data_seconds": waited,
    }, told


def forward_backward(parts: Parts, views: Views, values: dict, step: int, part: int, watch: bool) -> dict[str, Any]:
    """One micro-batch. Model randomness (drop path) is reseeded here, so it follows from the step alone."""
    run, device = parts.plan.spec.run, parts.device
    torch.manual_seed(seed_of(parts.plan.seed, "model", step, part, parts.parallelism.rank))
    with parts.parallelism.micro_batch(parts.objective, last=part + 1 == parts.plan.batch.accumulation):
        with torch.autocast(device.type, AUTOCAST.get(run.precision), enabled=run.precision in AUTOCAST):
            total, metrics = parts.objective(views, values, watch)
        parts.optimizer.backward(total / parts.plan.batch.accumulation)
    return {"loss": total.detach(), **metrics}


def notes(parts: Parts, row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What the losses tell of a step, in words, and what its crops lack; each with what it is told of once."""
    for label, loss in parts.losses.items():
        for note in loss.notes(within(row, f"{label}/")):
            yield f"loss.{label}: {note}", f"loss.{label}: {note}"
    placed = {name: share for name, share in row.items() if name.startswith(PLACED)}
    for name, share in placed.items():
        if share and name.startswith(f"{PLACED}without"):
            told = f"{100 * share / sum(placed.values()):.3g}% of this step's crops that were to be placed"
            yield (
                name,
                f'augmentation.where: {told} could not be put where they should lie; metrics.jsonl has all shares as "{name}"',
            )


def add_metrics(sums: dict[str, float], metrics: dict[str, Any], parts: int) -> None:
    """Add a micro-batch's share of the step's means."""
    for name, value in metrics.items():
        sums[name] = sums.get(name, 0.0) + float(value) / parts


def options_of(label: str) -> str:
    """The key path of a strategy's options."""
    return "teacher." if label == "teacher" else f"strategy.{label}."


def evaluate_due(
    parts: Parts, folder: RunFolder, progress: Progress, health: Health, unreadable: Unreadable, step: int
) -> list[Verdict]:
    """Run the evaluators whose turn it is; the start and the end are always measured. Returns what health says to it."""
    plan, started = parts.plan, time.perf_counter()
    due = [
        label
        for label in parts.evaluators
        if step == plan.steps or is_due(step, plan.lengths[f"evaluate.{label}.every"])
    ]
    if not due:
        return []
    figures = evaluate(parts, due, unreadable.evaluated)
    folder.write("evaluations", {"step": step, **figures, "seconds": time.perf_counter() - started})
    progress.evaluated(step, figures)
    best = plan.spec.checkpoint.keep_best
    if best.partition("/")[0] in due and best not in figures:
        there = ", ".join(name for name in figures if name.startswith(best.partition("/")[0]))
        raise ConfigError([Problem(f'there is no figure "{best}"; there are: {there}', "checkpoint.keep_best")])
    if best in figures:
        save_best(parts, folder.checkpoints, step, best, figures[best])
    return health.evaluated(step, figures)
