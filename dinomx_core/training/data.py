"""Positions in an endless stream of images -> batches of views. Everything follows from a position's number."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from dinomx_core.artifacts import RunFolder
from dinomx_core.declare.facts import Part
from dinomx_core.errors import DataError, DinomxError
from dinomx_core.planning.cost import Batch
from dinomx_core.planning.spec import LoaderOptions
from dinomx_core.training.contracts import Augmentation, Dataset, Intensity, Masking
from dinomx_core.training.flow import Crop, Item, Views
from dinomx_core.training.positions import positions
from dinomx_core.training.stopping import SIGNALS
from dinomx_core.training.streams import Stream

if TYPE_CHECKING:
    from dinomx_core.training.guide import Guide

Sample = tuple[dict[str, list[Crop]], int, int, tuple[str, ...]]  # crops by view, label or -1, index, unreadable images
TRIES = 100  # images in a row that may be unreadable
SHOWN = 3  # unreadable images that are told one by one
ELSEWHERE = " (in an evaluation)"  # ends the lines of images that are not, or not only, the training's


class Masks:
    """Gives the crops of one view their patch masks."""

    def __init__(self, masking: Masking, view: str, patch_size: int, images: int, by_channel: bool = False):
        """by_channel: the backbone has tokens of its own for each channel, of which the same places are masked."""
        self.masking, self.view, self.patch_size, self.images = masking, view, patch_size, images
        self.by_channel = by_channel
        self._step, self._counts = (-1, 0), [0]

    def add(self, crops: list[Crop], stream: Stream, step: int, slot: int) -> None:
        """Mask the crops of the image in one of a step's slots. A step's crops are counted view-major: all first crops, all
        second crops, ..."""
        for number, crop in enumerate(crops):
            rows, columns = (side // self.patch_size for side in crop.pixels.shape[-2:])
            if self._step != (step, rows * columns):
                rng = stream.step.fresh("masks")
                self._step = (step, rows * columns)
                self._counts = list(self.masking.counts(len(crops) * self.images, rows * columns, rng))
            count = self._counts[number * self.images + slot]
            mask = torch.zeros(rows * columns, dtype=torch.bool)
            if count:
                mask = self.masking.mask(count, (rows, columns), stream.purpose(f"{self.view} mask {number}"))
            crop.mask = mask.repeat(len(crop.pixels)) if self.by_channel else mask


class TrainingImages(TorchDataset):
    """Position -> augmented crops of one image. `images`: positions that make a step."""

    def __init__(
        self,
        data: Dataset,
        augmentation: Augmentation,
        seed: int,
        shuffle: bool,
        images: int,
        intensity: Intensity,
        parts: Sequence[Part] = (),
        masks: Masks | None = None,
        guide: "Guide | None" = None,
    ):
        self.guide = guide
        self.data, self.augmentation, self.seed, self.images, self.masks = data, augmentation, seed, images, masks
        self.intensity = intensity
        self.positions = positions(len(data), seed, shuffle, images, parts)

    def __getitem__(self, position: int) -> Sample | DinomxError:
        """The sample at a position; the next image that can be read stands in for one that cannot. An error of the user's data
        is returned: a worker would wrap it in its own traceback."""
        first = self.positions.index(position)
        step, slot = divmod(position, self.images)
        faults: list[str] = []
        for index in range(min(TRIES, self.positions.room(first))):
            try:
                item = self.read(first, index)
                if self.guide:
                    maps = self.guide.regions(position) if not index else None  # those of the image itself
                    item = replace(item, regions=lambda maps=maps: maps)  # type: ignore[misc]
                stream = Stream(self.seed, position, step=Stream(self.seed, "step", step))
                crops = self.augmentation(item, stream)
                if self.masks:
                    self.masks.add(crops[self.masks.view], stream, step, slot)
                return (
                    crops,
                    item.label if isinstance(item.label, int) else -1,
                    self.positions.after(first, index),
                    tuple(faults),
                )
            except DataError as error:
                faults.append(str(error))
            except DinomxError as error:
                return error
        return DataError(f"{len(faults)} images in a row cannot be read; the first: {faults[0]}")

    def read(self, first: int, further: int) -> Item:
        """The image that stands in after so many that could not be read, in numbers of a known meaning. Raises DataError naming it."""
        return self.intensity.of(self.data[self.positions.after(first, further)])


class Unreadable:
    """Counts the images that turned out unreadable, names them in `unreadable.txt`, and stops the run when they are too many."""

    def __init__(self, folder: RunFolder, count: int, share: float, note: Callable[[str], None]):
        self.file, self.count, self.share, self.note = folder.path / "unreadable.txt", count, share, note
        self.writes = folder.writes
        self.known = set(self.file.read_text("utf-8").splitlines()) if self.file.exists() else set()

    def add(self, faults: tuple[str, ...]) -> None:
        """Note the faults of a batch, for whose images others stand in. Raises DataError above the limit."""
        self._tell(faults, "left out, the next image stands in")
        self._limit({fault for fault in self.known if not fault.endswith(ELSEWHERE)}, self.count)

    def evaluated(self, faults: list[str], count: int) -> None:
        """Note the faults of an evaluation's set of `count` images. Raises DataError above the limit."""
        self._tell(tuple(fault + ELSEWHERE for fault in faults), "left out")
        self._limit(set(faults), count)

    def _tell(self, faults: tuple[str, ...], what: str) -> None:
        fresh = [fault for fault in dict.fromkeys(" ".join(f.split()) for f in faults) if fault not in self.known]
        for fault in fresh:
            self.known.add(fault)
            if len(self.known) <= SHOWN:
                self.note(f"{what}: {fault}")
            if len(self.known) == SHOWN:
                self.note(f"further unreadable images are named in {self.file} only")
        if fresh and self.writes:
            with self.file.open("a", encoding="utf-8") as file:
                file.writelines(f"{fault}\n" for fault in fresh)

    def _limit(self, faults: set[str], count: int) -> None:
        if len(faults) > self.share * count:
            some = "; ".join(sorted(faults)[:SHOWN])
            raise DataError(
                f"{len(faults)} of {count} images cannot be read, more than loader.max_unreadable = {self.share:g} "
                f"allows: {some} (all of them in {self.file})"
            )


def collate(samples: list[Sample | DinomxError]) -> Views | DinomxError:
    """Samples -> `Views`, view-major; or the first error among them."""
    for sample in samples:
        if isinstance(sample, DinomxError):
            return sample
    return stack([sample for sample in samples if not isinstance(sample, DinomxError)])


def stack(samples: list[Sample]) -> Views:
    """Samples -> `Views`, view-major."""
    pixels, masks, boxes, channels = {}, {}, {}, {}
    for view, first in samples[0][0].items():
        crops = [sample[0][view][v] for v in range(len(first)) for sample in samples]
        shape = (len(first), len(samples))
        pixels[view] = torch.stack([crop.pixels for crop in crops]).view(*shape, *crops[0].pixels.shape)
        boxes[view] = torch.tensor([crop.box for crop in crops]).view(*shape, 4)
        if crops[0].mask is not None:
            masks[view] = torch.stack([crop.mask for crop in crops if crop.mask is not None]).view(*shape, -1)
        if crops[0].channels is not None:
            channels[view] = torch.tensor([crop.channels for crop in crops[: len(samples)]])
    labels = torch.tensor([sample[1] for sample in samples])
    faults = tuple(fault for sample in samples for fault in sample[3])
    index = torch.tensor([sample[2] for sample in samples])
    return Views(pixels, masks, boxes, labels, index, faults, channels, shares(samples))


def shares(samples: list[Sample]) -> dict[str, float]:
    """The share of the samples' crops that were placed in each way that has a name."""
    words = [crop.placed for sample in samples for crops in sample[0].values() for crop in crops]
    return {word: count / len(words) for word, count in sorted(Counter(words).items()) if word}


class MicroBatches:
    """The positions of each micro-batch of one rank, in order, from a step on."""

    def __init__(self, batch: Batch, rank: int, first_step: int, steps: int):
        self.batch, self.rank, self.first_step, self.steps = batch, rank, first_step, steps

    def __iter__(self) -> Iterator[list[int]]:
        micro, parts = self.batch.micro, self.batch.accumulation
        for step in range(self.first_step, self.steps):
            for part in range(parts):
                first = step * self.batch.images + (part * self.batch.world_size + self.rank) * micro
                yield list(range(first, first + micro))

    def __len__(self) -> int:
        return (self.steps - self.first_step) * self.batch.accumulation


def settle(polite: bool, worker: int) -> None:
    """A `polite` worker lets the training's own threads go first: one that takes a core from them makes all of them wait. Signals
    are left to the training process, which ends its workers in order: a batch system sends them to every process of a job."""
    if polite and hasattr(os, "nice"):
        os.nice(10)
    for number in SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=obey_parent, daemon=True).start()


def obey_parent() -> None:
    """Wait for SIGTERM and leave only when the training process itself sent it."""
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(0)


def make_loader(images: TrainingImages, batches: MicroBatches, options: LoaderOptions, pin: bool) -> DataLoader:
    """A loader whose result does not depend on how many workers it has."""
    return DataLoader(
        images,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=options.workers,
        prefetch_factor=options.prefetch if options.workers else None,
        pin_memory=pin,
        worker_init_fn=partial(settle, not pin),  # with a GPU there are no such threads
    )
