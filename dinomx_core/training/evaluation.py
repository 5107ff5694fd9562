"""Evaluation during a run and of saved models: draws from its own streams and leaves the run as it was."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import torch

from dinomx_core.declare.facts import Preprocessing
from dinomx_core.declare.values import Chosen
from dinomx_core.errors import DataError, TrainingError
from dinomx_core.training.backbone import Backbone
from dinomx_core.training.build import Parts
from dinomx_core.training.contracts import Dataset, Encoder, Intensity, Parallelism
from dinomx_core.training.flow import Item, Tokens
from dinomx_core.training.images import to_channels
from dinomx_core.training.pixels import chosen, normalise, resize, to_float

READERS, READ_AHEAD = 4, 64  # threads, and items that wait at most


def preprocess(item: Item, how: Preprocessing) -> torch.Tensor:
    """A prepared image as the model sees it when nothing is random: (C, height, width) of the crop, float32, normalised."""
    (high, wide), some, image = how.crop, item.channels, item.image
    size, top, left = how.fitted(*image.shape[-2:])
    image = resize(image, (size.height, size.width))
    cut = to_float(image[:, top : top + high, left : left + wide])
    return normalise(cut, chosen(how.mean, some), chosen(how.std, some))


def make_encoder(
    backbone: Backbone,
    how: Preprocessing,
    channels: int,
    parallelism: Parallelism,
    intensity: Intensity,
    unreadable: Callable[[list[str], int], None] = lambda faults, count: None,
) -> Encoder:
    """A backbone in evaluation mode, without autocast or gradients."""
    device = parallelism.device
    narrow = torch.float64 if next(backbone.parameters()).dtype == torch.float64 else torch.float32

    def encode(items: Iterable[Item]) -> Tokens:
        items = list(items)
        pixels = torch.stack([preprocess(item, how) for item in items]).to(device, narrow)
        some = items[0].channels
        which = None if some is None else torch.tensor([item.channels for item in items], device=device)
        modes = [(module, module.training) for module in backbone.modules()]
        backbone.eval()
        try:
            with torch.no_grad():  # what is put together from shards for it may be used in training too
                return backbone(pixels, channels=which)
        finally:
            for module, training in modes:
                module.training = training

    def prepare(item: Item) -> Item:
        made = intensity.of(item)
        if made.channels is not None:
            return made
        try:
            return replace(made, image=to_channels(made.image, channels))
        except DataError as error:
            raise DataError(f"{item.id}: {error}" if item.id else str(error)) from None

    return Encoder(backbone, how, channels, parallelism, prepare, encode, unreadable)


def evaluate(parts: Parts, labels: Iterable[str], unreadable: Callable[[list[str], int], None]) -> dict[str, float]:
    """Measure the teacher with some of the run's evaluators: figures as "label/figure". `unreadable` is told what could not be
    read of so many images. The run's random state is put back afterwards."""
    devices = [parts.device] if parts.device.type == "cuda" else []
    figures: dict[str, float] = {}
    with torch.random.fork_rng(devices=devices):
        backbone, how = parts.teacher.network.backbone, parts.plan.preprocessing
        encoder = make_encoder(backbone, how, parts.plan.data.channels, parts.parallelism, parts.intensity, unreadable)
        for label in labels:
            found = parts.evaluators[label].evaluate(encoder)
            figures.update({f"{label}/{name}": value for name, value in found.items()})
    return figures


def read_ahead(
    data: Dataset, prepare: Callable[[Item], Item], fault: Callable[[str], None], indices: Iterable[int]
) -> Iterator[tuple[int, Item]]:
    """Some of a data set's items with their indices, in order, read and prepared by a few threads ahead of their use; `fault` is told of
    those that cannot be read."""
    with ThreadPoolExecutor(READERS) as pool:
        waiting: deque[tuple[int, Future[Item]]] = deque()
        for index in indices:
            waiting.append((index, pool.submit(lambda index: prepare(data[index]), index)))
            if len(waiting) > READ_AHEAD:
                yield from _read(*waiting.popleft(), fault)
        while waiting:
            yield from _read(*waiting.popleft(), fault)


def _read(index: int, future: Future[Item], fault: Callable[[str], None]) -> Iterator[tuple[int, Item]]:
    try:
        yield index, future.result()
    except DataError as error:
        fault(str(error))


def summaries(encoder: Encoder, chosen: Chosen, data: Dataset, batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Summary vectors (M, D) float32 and labels (M,) of the labelled images that can be read, on the CPU. Raises DataError
    when there are none.

    `data` is what `chosen` builds; evaluators of one round that name the same images share their features.
    """
    key = (chosen.component.name, repr(chosen.options))
    if key not in encoder.seen:
        encoder.seen[key] = _summaries(encoder, data, batch_size)
    return encoder.seen[key]


def _summaries(encoder: Encoder, data: Dataset, batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Each process encodes every n-th image, and gets what the others encoded."""
    parallelism = encoder.parallelism
    features: list[torch.Tensor] = []
    labels: list[tuple[int, int]] = []  # with the image's index
    batch: list[Item] = []
    faults: list[str] = []
    rounds = -(
        -len(data) // (parallelism.world_size * batch_size)
    )  # forward passes of each process, if they are sharded

    def flush() -> None:
        features.append(encoder.encode(batch).features.float().cpu())
        batch.clear()

    mine = range(parallelism.rank, len(data), parallelism.world_size)
    for index, item in read_ahead(data, encoder.prepare, faults.append, mine):
        if item.label is not None:
            if batch and batch[0].channels != item.channels:
                flush()
            batch.append(item)
            labels.append((index, item.label))
        if len(batch) == batch_size:
            flush()
    if batch:
        flush()
    if len({part.shape[1] for part in features}) > 1:
        raise DataError(
            "images of different channels have features of different widths with this backbone; evaluate one set of channels at a time"
        )
    found = torch.cat(features) if features else torch.empty(0)
    blank = Item(torch.zeros(encoder.channels, *encoder.preprocessing.crop))
    if parallelism.world_size > 1:
        for _ in range(rounds - len(features)):
            encoder.encode([blank])
        everyone = parallelism.collect((found, labels, faults))
        found = (
            torch.cat([rows for rows, _, _ in everyone if len(rows)]) if any(len(r) for r, _, _ in everyone) else found
        )
        labels = [label for _, part, _ in everyone for label in part]
        faults = [fault for _, _, part in everyone for fault in part]
        order = sorted(range(len(labels)), key=labels.__getitem__)
        found, labels = found[order], [labels[n] for n in order]
    encoder.unreadable(faults, len(data))
    if not labels:
        raise DataError(f"none of {len(data)} images can be read" + (f"; the first: {faults[0]}" if faults else ""))
    if not bool(torch.isfinite(found).all()):
        raise TrainingError(
            "the model's features are not finite: it has diverged; lower optimizer.lr or train in float32"
        )
    return found, torch.tensor([label for _, label in labels])
