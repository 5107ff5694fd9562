"""The loop. It reads top to bottom and knows no method, no strategy and no backend by name."""

import contextlib
import math
import time
from collections.abc import Generator, Iterator
from typing import Any

import torch

from dinomx_core.artifacts import RunFolder
from dinomx_core.errors import DinomxError, TrainingError
from dinomx_core.progress import Progress
from dinomx_core.training.build import Parts
from dinomx_core.training.checkpoint import save_checkpoint
from dinomx_core.training.data import MicroBatches, TrainingImages, make_loader
from dinomx_core.training.evaluation import evaluate
from dinomx_core.training.flow import Views
from dinomx_core.training.streams import seed_of

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def train(parts: Parts, folder: RunFolder, progress: Progress) -> dict[str, float]:
    """Train from step 0 to the plan's last. Returns the last evaluation's figures."""
    plan, spec = parts.plan, parts.plan.spec
    images = TrainingImages(parts.data, parts.augmentation, spec.run.seed, spec.loader.shuffle)
    batches = MicroBatches(plan.batch, parts.parallelism.rank, 0, plan.steps)
    loader = make_loader(images, batches, spec.loader, pin=parts.device.type == "cuda")
    figures: dict[str, float] = {}
    with contextlib.closing(iter_views(loader, parts.device)) as stream:
        for step in range(plan.steps):
            # once in a while: measure the teacher, before this step changes anything
            figures.update(evaluate_due(parts, folder, progress, step))

            # the step
            started = time.perf_counter()
            row = train_step(parts, stream, step)
            row["seconds"] = time.perf_counter() - started
            row["images_per_second"] = plan.batch.images / row["seconds"]

            # say and write what happened
            folder.metrics(row)
            progress.step(row)
    save_checkpoint(parts, folder, plan.steps)
    figures.update(evaluate_due(parts, folder, progress, plan.steps))
    return figures


def iter_views(loader: Any, device: torch.device) -> Generator[tuple[Views, float], None, None]:
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
        yield views.to(device), time.perf_counter() - started


def train_step(parts: Parts, stream: Iterator[tuple[Views, float]], step: int) -> dict[str, Any]:
    """One optimisation step: its micro-batches forward and backward, then optimiser, losses' state and teacher."""
    plan = parts.plan
    values = plan.values_at(step)
    scoped = {label: scope(values, f"loss.{label}.") for label in parts.losses}
    waited = 0.0
    metrics: dict[str, float] = {}
    for part in range(plan.batch.accumulation):
        views, seconds = next(stream)
        waited += seconds
        add_metrics(metrics, forward_backward(parts, views, scoped, step, part), plan.batch.accumulation)
    if not math.isfinite(metrics["loss"]):
        which = ", ".join(f"{name} = {value}" for name, value in metrics.items() if name.startswith("loss"))
        raise TrainingError(
            f"step {step}: the loss is not finite ({which}); lower optimizer.lr, lengthen its warm-up, or train in float32"
        )
    lr, weight_decay = values["optimizer.lr"], values["optimizer.weight_decay"]
    norm = parts.optimizer.step(step, lr, weight_decay)
    for loss in parts.losses.values():
        loss.after_step(parts.parallelism)
    for label, strategy in parts.strategies.items():
        prefix = "teacher." if label == "teacher" else f"strategy.{label}."
        strategy.after_step(parts.teacher, scope(values, prefix))
    return {
        "step": step,
        **metrics,
        "lr": lr,
        "weight_decay": weight_decay,
        "gradient_norm": norm,
        "data_seconds": waited,
    }


def forward_backward(parts: Parts, views: Views, values: dict, step: int, part: int) -> dict[str, Any]:
    """One micro-batch. Model randomness (drop path) is reseeded here, so it follows from the step alone."""
    run, device = parts.plan.spec.run, parts.device
    torch.manual_seed(seed_of(run.seed, "model", step, part, parts.parallelism.rank))
    with torch.autocast(device.type, AUTOCAST.get(run.precision), enabled=run.precision in AUTOCAST):
        total, metrics = parts.objective(views, values)
    parts.optimizer.backward(total / parts.plan.batch.accumulation)
    return {"loss": total.detach(), **metrics}


def add_metrics(sums: dict[str, float], metrics: dict[str, Any], parts: int) -> None:
    """Add a micro-batch's share of the step's means."""
    for name, value in metrics.items():
        sums[name] = sums.get(name, 0.0) + float(value) / parts


def scope(values: dict[str, float], prefix: str) -> dict[str, float]:
    """The values below a key path, by the rest of their names."""
    return {key[len(prefix) :]: value for key, value in values.items() if key.startswith(prefix)}


def evaluate_due(parts: Parts, folder: RunFolder, progress: Progress, step: int) -> dict[str, float]:
    """Run the evaluators whose turn it is; the start and the end are always measured."""
    plan, figures = parts.plan, {}
    for label, evaluator in parts.evaluators.items():
        every = max(1, plan.lengths[f"evaluate.{label}.every"])
        if step % every == 0 or step == plan.steps:
            started = time.perf_counter()
            found = {f"{label}/{name}": value for name, value in evaluate(parts, evaluator).items()}
            folder.evaluation({"step": step, **found, "seconds": time.perf_counter() - started})
            progress.evaluated(step, found)
            figures.update(found)
    return figures
