"""Maps of the teacher's attention for placements that put crops where it looks. They are made a period of steps ahead of the training that
uses them, and kept in the run folder, so that a run is the same with any number of workers and goes on bit by bit."""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from dinomx_core.artifacts import RunFolder
from dinomx_core.errors import TrainingError
from dinomx_core.planning.walk import chosen_parts
from dinomx_core.training.build import Parts
from dinomx_core.training.contracts import Dataset, Encoder
from dinomx_core.training.evaluation import make_encoder, walk
from dinomx_core.training.flow import Item
from dinomx_core.training.maps import head_maps
from dinomx_core.training.positions import positions
from dinomx_core.training.regions import Regions

BATCH = 64  # images a forward pass
PAUSE = 0.05  # seconds between two looks for a file that is not there yet


class Guide:
    """Where the maps lie: a file a period of `every` steps and process, its rows the period's images from the first on, each process's
    every n-th. No maps are there before the step `after`, nor in the first period, before which nothing was learnt."""

    def __init__(self, folder: Path, every: int, after: int, images: int, steps: int):
        self.folder, self.every, self.images, self.steps = folder, every, images, steps
        self.first = max(1, math.ceil(after / every))  # period
        self._period, self._files = -1, list[dict[str, Tensor]]()

    def regions(self, position: int) -> Regions | None:
        """Where the teacher looked in the image at a position; None where it was not asked. Waits for the file of its period."""
        period, row = divmod(position, self.every * self.images)
        if period < self.first:
            return None
        if period != self._period:
            while not (found := self.files(period)):
                time.sleep(PAUSE)
                if os.getppid() == 1:  # of a worker whose training has died
                    os._exit(1)
            self._period, self._files = period, [load_file(file) for file in found]
        file = self._files[row % len(self._files)]
        row //= len(self._files)
        return Regions(density=file["maps"][row].float(), seen=file["seen"][row]) if bool(file["read"][row]) else None

    def files(self, period: int) -> list[Path]:
        """The files of a period by rank, once all of them are there; the newest ones, where another number of processes made some."""
        sets = []
        for first in self.folder.glob(f"{period}-0-of-*.safetensors"):
            count = int(first.stem.rpartition("-")[2])
            found = [self.file(period, rank, count) for rank in range(count)]
            if all(file.exists() for file in found) and sum(map(rows_in, found)) >= self.length(period):
                sets.append((max(file.stat().st_mtime_ns for file in found), found))
        return max(sets)[1] if sets else []

    def length(self, period: int) -> int:
        """How many images a period has."""
        return min(self.every, self.steps - period * self.every) * self.images

    def file(self, period: int, rank: int, world: int) -> Path:
        """A process's file."""
        return self.folder / f"{period}-{rank}-of-{world}.safetensors"

    def wanted(self, step: int) -> int | None:
        """The period whose maps a step makes, if any."""
        period = step // self.every + 1
        due = step % self.every == 0 and period >= self.first and period * self.every < self.steps
        return period if due else None

    def check(self, step: int) -> None:
        """Raise TrainingError unless the maps are there that a run needs to go on from a step."""
        now = step // self.every
        for period in (now, now + 1) if step % self.every else (now,):
            if step and self.first <= period < math.ceil(self.steps / self.every) and not self.files(period):
                raise TrainingError(
                    f"{self.folder}: the attention maps of the steps from {period * self.every} on are not there; bring them "
                    "back, or start anew with --overwrite"
                )

    def forget(self, step: int) -> None:
        """Delete the maps of periods before a step's."""
        self._delete(lambda period: period < step // self.every)

    def restart(self, step: int) -> None:
        """Delete the maps that a run which goes on from a step makes again: another number of processes has other files of them."""
        self._delete(lambda period: period > math.ceil(step / self.every))

    def _delete(self, which: Callable[[int], bool]) -> None:
        for file in self.folder.glob("*-of-*.safetensors"):
            if which(int(file.stem.partition("-")[0])):
                file.unlink(missing_ok=True)


def rows_in(file: Path) -> int:
    """How many images a file has maps of."""
    with safe_open(file, "pt") as opened:
        return int(opened.get_slice("read").get_shape()[0])


def make_guide(parts: Parts, folder: RunFolder) -> Guide | None:
    """The guide of a run whose augmentation's placement asks for the teacher's attention."""
    plan = parts.plan
    for path, chosen in chosen_parts(plan.spec.augmentation):
        if chosen.component.kind == "placement" and chosen.component.attends:
            key = ".".join(("augmentation", *path))
            every, after = (plan.lengths[f"{key}.{name}"] for name in ("every", "after"))
            return Guide(folder.path / "attention", max(1, every), after, plan.batch.images, plan.steps)
    return None


def refresh(
    guide: Guide, parts: Parts, folder: RunFolder, step: int, unreadable: Callable[[list[str], int], None]
) -> None:
    """Make the maps of the period after the one that begins with this step, where one does; each process its share."""
    period = guide.wanted(step)
    if period is None:
        return
    parallelism, plan = parts.parallelism, parts.plan
    if parallelism.rank == 0:
        guide.folder.mkdir(exist_ok=True)
        kept = [int(place.name) for place in folder.checkpoints.glob("*") if place.name.isdigit()]
        guide.forget(min([step, *kept]))
    parallelism.barrier()
    encoder = make_encoder(
        parts.teacher.network.backbone, plan.preprocessing, plan.data.channels, parallelism, parts.intensity, unreadable
    )
    order = positions(len(parts.data), plan.seed, plan.spec.loader.shuffle, plan.batch.images, plan.data.parts)
    length = guide.length(period)
    first = period * guide.every * plan.batch.images
    mine = [order.after(order.index(first + row), 0) for row in range(parallelism.rank, length, parallelism.world_size)]
    devices = [parts.device] if parts.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        found = maps_of(encoder, Share(parts.data, mine, length, parallelism.world_size))
    file = guide.file(period, parallelism.rank, parallelism.world_size)
    save_file(found, file.with_suffix(".part"))
    os.replace(file.with_suffix(".part"), file)


class Share(Dataset):
    """A process's share of `length` images of a data set, which are numbered as those of all processes are: every `world`-th one."""

    def __init__(self, data: Dataset, indices: list[int], length: int, world: int):
        self.data, self.indices, self.length, self.world = data, indices, length, world

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Item:
        return self.data[self.indices[index // self.world]]


def maps_of(encoder: Encoder, data: Share) -> dict[str, Tensor]:
    """Maps (M, h, w) float16 of the mean head, what of the images they show (M, 4), and whether the image could be read (M,)."""
    how, count, faults = encoder.preprocessing, len(data.indices), list[str]()
    sides = [side // encoder.backbone.patch_size for side in how.crop]
    maps, seen, read = (
        torch.zeros(count, *sides, dtype=torch.float16),
        torch.zeros(count, 4),
        torch.zeros(count, dtype=torch.bool),
    )
    for numbers, items in walk(encoder, data, BATCH, faults.append):
        if not numbers:
            encoder.encode(items)
            continue
        rows = [number // data.world for number in numbers]
        _, heads, _ = head_maps(encoder, items)
        maps[rows], read[rows] = heads.mean(1).cpu().half(), True
        seen[rows] = torch.tensor([how.seen(*item.image.shape[-2:]) for item in items])
    encoder.unreadable(faults, count)
    return {"maps": maps, "seen": seen, "read": read}
