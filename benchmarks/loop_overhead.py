"""A step of `dinomx run` against a bare hand-written loop with the same modules, batches and loader, interleaved.

    python benchmarks/loop_overhead.py CONFIG [--set KEY=VALUE ...]

prints the median seconds a step of both and the median of the pairwise ratios.
"""

import contextlib
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from dinomx_core import api
from dinomx_core.artifacts import RunFolder
from dinomx_core.training.build import build
from dinomx_core.training.data import MicroBatches, make_loader
from dinomx_core.training.loop import AUTOCAST, iter_views, make_images, train_step

BLOCK, ROUNDS, WARMUP = 5, 8, 3


def stream_of(parts, steps):
    """A loader of its own, as the run makes it."""
    spec = parts.plan.spec
    images = make_images(parts)
    loader = make_loader(images, MicroBatches(parts.plan.batch, 0, 0, steps), spec.loader, False)
    return iter_views(loader, parts.device)


class Bare:
    """What one writes by hand: forward, backward, clip, AdamW, EMA, with constants for all schedules."""

    def __init__(self, parts):
        self.parts = parts
        plan = parts.plan
        values = plan.values_at(plan.steps // 2)
        self.lr, self.momentum = values["optimizer.lr"], values["teacher.momentum"]
        self.scoped = {
            label: {k.removeprefix(f"loss.{label}."): v for k, v in values.items() if k.startswith(f"loss.{label}.")}
            for label in parts.losses
        }
        decayed = [p for p in parts.student.parameters() if p.requires_grad and p.ndim > 1]
        rest = [p for p in parts.student.parameters() if p.requires_grad and p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 0.04}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=self.lr, fused=True)
        self.parameters = decayed + rest
        self.teacher = [t for _, t in parts.teacher.pairs]
        self.student = [s for s, _ in parts.teacher.pairs]

    def step(self, stream):
        precision = self.parts.plan.spec.run.precision
        views, _ = next(stream)
        with torch.autocast("cpu", AUTOCAST.get(precision), enabled=precision in AUTOCAST):
            loss, _ = self.parts.objective(views, self.scoped)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 3.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        for one in self.parts.losses.values():
            one.after_step(self.parts.parallelism)
        torch._foreach_lerp_(self.teacher, self.student, 1 - self.momentum)
        return loss.item()


def main(config: str, overrides: list[str]) -> None:
    """Time blocks of steps of the two in turn."""
    steps = WARMUP + BLOCK * ROUNDS
    with tempfile.TemporaryDirectory() as out:
        plan = api.plan(config, overrides=[*overrides, f"run.steps={steps}"], out=out)
        ours, bare = build(plan), Bare(build(plan))
        folder = RunFolder(Path(out))
        times: dict[str, list[float]] = {"run": [], "bare": []}
        with (
            contextlib.closing(stream_of(ours, steps)) as first,
            contextlib.closing(stream_of(bare.parts, steps)) as second,
        ):
            for number in range(WARMUP):
                train_step(ours, first, number)
                bare.step(second)
            for turn in range(ROUNDS):
                started = time.perf_counter()
                for number in range(BLOCK):
                    folder.write("metrics", train_step(ours, first, WARMUP + turn * BLOCK + number)[0])
                times["run"].append((time.perf_counter() - started) / BLOCK)
                started = time.perf_counter()
                for _ in range(BLOCK):
                    bare.step(second)
                times["bare"].append((time.perf_counter() - started) / BLOCK)
        folder.close()
    ratio = statistics.median(a / b for a, b in zip(times["run"], times["bare"], strict=True))
    print(f"run  {statistics.median(times['run']):.4f} s a step")
    print(f"bare {statistics.median(times['bare']):.4f} s a step")
    print(f"ratio {ratio:.3f} (median of {ROUNDS} pairs of {BLOCK} steps, {plan.spec.run.precision})")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1], [word for word in sys.argv[2:] if word != "--set"])
