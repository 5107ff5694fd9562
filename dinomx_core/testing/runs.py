"""Short runs, and what they leave: what checks and tests stand on."""

import dinomx_core.training  # noqa: F401, I001 - sets how threads wait, before torch is imported

import contextlib
import importlib
import json
import os
import random
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

from dinomx_core import api, folders
from dinomx_core.planning.plan import Plan
from dinomx_core.progress import Silent
from dinomx_core.testing.subject import Part, Subject
from dinomx_core.training.build import Parts, build
from dinomx_core.training.data import MicroBatches, make_loader
from dinomx_core.training.flow import Tokens, Views
from dinomx_core.training.huggingface import no_progress_bars
from dinomx_core.training.loop import iter_views, make_images, train_step

NEAR: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}  # equal but for the order of sums
COARSE = 0.1  # of a spread or a value: what bf16 may change
TIMINGS = ("seconds", "data_seconds", "images_per_second")


class Cut(Exception):
    """Breaks a run off, as a crash would."""


class CutAt(Silent):
    """Breaks a run off after so many steps."""

    def __init__(self, done: int):
        self.done = done

    def step(self, row: dict[str, Any]) -> None:
        """The cut."""
        if row["step"] + 1 == self.done:
            raise Cut


def rows(path: Path) -> list[dict[str, Any]]:
    """A jsonl file's rows."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def untimed(some: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what differs from one time to the next."""
    return [{name: value for name, value in row.items() if name not in TIMINGS} for row in some]


def left_by(folder: Path) -> tuple[dict[str, list[dict]], dict[str, Tensor]]:
    """Everything of a run that must be the same: rows but for their timings, and every tensor of the last checkpoint."""
    files = {name: folder / f"{name}.jsonl" for name in ("metrics", "evaluations")}
    written = {name: untimed(rows(file)) for name, file in files.items() if file.exists()}
    last = folder / "checkpoints" / str(folders.steps_in(folder / "checkpoints")[0])
    found = {f"{file.stem}/{n}": t for file in sorted(last.glob("*.safetensors")) for n, t in load_file(file).items()}
    return written, found


def planned(subject: Subject, config: dict[str, Any]) -> Plan:
    """Its plan. Raises ConfigError with all that is wrong with it."""
    return api.plan(config, plugins=subject.modules, out=subject.place)


def built(part: Part, *changes: Mapping[str, Any]) -> Parts:
    """A short run with a component, built."""
    return build(planned(part.subject, part.config(*changes)))


def stream_of(parts: Parts) -> Iterator[tuple[Views, float]]:
    """Training batches for freshly built parts."""
    batches = MicroBatches(parts.plan.batch, parts.parallelism.rank, 0, parts.plan.steps)
    loader = make_loader(make_images(parts), batches, parts.plan.spec.loader, pin=False)
    exact = parts.plan.spec.run.precision == "float64"
    return iter_views(loader, parts.device, torch.float64 if exact else torch.float32)


def steps(parts: Parts, count: int) -> list[dict[str, Any]]:
    """Train freshly built parts for some steps. Returns their rows."""
    with contextlib.closing(stream_of(parts)) as stream:  # type: ignore[type-var]
        return [train_step(parts, stream, step)[0] for step in range(count)]


def of_rank(
    config: dict[str, Any], plugins: Sequence[str], count: int, place: str = ".", path: Sequence[str] = ()
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """What one of several processes does in a folder, with modules of a path: the rows of some steps, and the student's whole weights."""
    os.chdir(place)
    sys.path.extend(entry for entry in path if entry not in sys.path)
    importlib.invalidate_caches()
    parts = build(api.plan(config, plugins=[importlib.import_module(name) for name in plugins]))
    parts.student.eval()  # what networks draw (drop path) differs from process to process
    told = steps(parts, count)
    whole = {name: parts.parallelism.whole(t).cpu().clone() for name, t in parts.student.named_parameters()}
    return told, whole


def opened_by_transformers(folder: Path) -> None:
    """Open an export as strangers do. Raises what transformers raises."""
    with no_progress_bars():
        transformers.AutoModel.from_pretrained(folder, local_files_only=True)


@contextlib.contextmanager
def scrambled(seed: int) -> Iterator[None]:
    """The random states of Python, NumPy and torch set to something; put back afterwards."""
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor of a forward result: of a tensor, `Tokens`, or several of them."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Tokens):
        fields = (value.cls, value.registers, value.patches, value.by_channel)
        return [tensor for tensor in fields if tensor is not None]
    return [tensor for one in value for tensor in tensors_in(one)]
