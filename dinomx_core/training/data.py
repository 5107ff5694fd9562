"""Positions in an endless stream of images -> batches of views. Everything follows from a position's number."""

import os
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from dinomx_core.errors import DinomxError
from dinomx_core.planning.plan import Batch
from dinomx_core.planning.spec import LoaderOptions
from dinomx_core.training.contracts import Augmentation, Dataset
from dinomx_core.training.flow import Crop, Views
from dinomx_core.training.streams import Stream, seed_of

Sample = tuple[dict[str, list[Crop]], int, int]  # crops by view, label or -1, index


class Positions:
    """The data set as an endless stream: position p is image `order(p // n)[p % n]` of pass p // n."""

    def __init__(self, count: int, seed: int, shuffle: bool):
        self.count, self.seed, self.shuffle = count, seed, shuffle
        self._pass, self._order = -1, torch.empty(0, dtype=torch.int64)

    def index(self, position: int) -> int:
        """The image at a position."""
        number, slot = divmod(position, self.count)
        if not self.shuffle:
            return slot
        if number != self._pass:
            generator = torch.Generator().manual_seed(seed_of(self.seed, "order", number))
            self._pass, self._order = number, torch.randperm(self.count, generator=generator)
        return int(self._order[slot])


class TrainingImages(TorchDataset):
    """Position -> augmented crops of one image."""

    def __init__(self, data: Dataset, augmentation: Augmentation, seed: int, shuffle: bool):
        self.data, self.augmentation, self.seed = data, augmentation, seed
        self.positions = Positions(len(data), seed, shuffle)

    def __getitem__(self, position: int) -> Sample | DinomxError:
        """The sample at a position. An error of the user's data is returned: a worker would wrap it in its own traceback."""
        index = self.positions.index(position)
        try:
            item = self.data[index]
            crops = self.augmentation(item, Stream(self.seed, position))
        except DinomxError as error:
            return error
        return crops, -1 if item.label is None else item.label, index


def collate(samples: list[Sample | DinomxError]) -> Views | DinomxError:
    """Samples -> `Views`, view-major; or the first error among them."""
    for sample in samples:
        if isinstance(sample, DinomxError):
            return sample
    return stack([sample for sample in samples if not isinstance(sample, DinomxError)])


def stack(samples: list[Sample]) -> Views:
    """Samples -> `Views`, view-major."""
    pixels, masks, boxes = {}, {}, {}
    for view, first in samples[0][0].items():
        crops = [sample[0][view][v] for v in range(len(first)) for sample in samples]
        shape = (len(first), len(samples))
        pixels[view] = torch.stack([crop.pixels for crop in crops]).view(*shape, *crops[0].pixels.shape)
        boxes[view] = torch.tensor([crop.box for crop in crops]).view(*shape, 4)
        if crops[0].mask is not None:
            masks[view] = torch.stack([crop.mask for crop in crops if crop.mask is not None]).view(*shape, -1)
    labels = torch.tensor([sample[1] for sample in samples])
    return Views(pixels, masks, boxes, labels, torch.tensor([sample[2] for sample in samples]))


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


def step_back(worker: int) -> None:
    """Let the training's own threads go first: a worker that takes a core from one of them makes all of them wait."""
    if hasattr(os, "nice"):
        os.nice(10)


def make_loader(images: TrainingImages, batches: MicroBatches, options: LoaderOptions, pin: bool) -> DataLoader:
    """A loader whose result does not depend on how many workers it has."""
    return DataLoader(
        images,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=options.workers,
        prefetch_factor=options.prefetch if options.workers else None,
        pin_memory=pin,
        worker_init_fn=None if pin else step_back,  # with a GPU there are no such threads
    )
