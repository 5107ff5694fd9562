"""Evaluation during a run and of saved models: draws from its own streams and leaves the run as it was."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch

from dinomx_core.declare.facts import LabelKind, Preprocessing
from dinomx_core.declare.values import Chosen
from dinomx_core.errors import DataError, TrainingError
from dinomx_core.training.backbone import Backbone
from dinomx_core.training.build import Parts
from dinomx_core.training.contracts import Dataset, Encoder, Evaluator, Intensity, Parallelism
from dinomx_core.training.flow import Item, Label, Tokens
from dinomx_core.training.images import to_channels
from dinomx_core.training.pixels import chosen, normalise, resize, to_float

READERS, READ_AHEAD = 4, 64  # threads, and items that wait at most


def cut_out(item: Item, how: Preprocessing) -> torch.Tensor:
    """What the model sees of a prepared image when nothing is random: (C, height, width) of the crop, float32."""
    (high, wide), image = how.crop, item.image
    size, top, left = how.fitted(*image.shape[-2:])
    image = resize(image, (size.height, size.width))
    return to_float(image[:, top : top + high, left : left + wide])


def preprocess(item: Item, how: Preprocessing) -> torch.Tensor:
    """The same as the model gets it, normalised."""
    return normalise(cut_out(item, how), chosen(how.mean, item.channels), chosen(how.std, item.channels))


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
    backbone, how = parts.teacher.network.backbone, parts.plan.preprocessing
    encoder = make_encoder(backbone, how, parts.plan.data.channels, parts.parallelism, parts.intensity, unreadable)
    return measured(encoder, {label: parts.evaluators[label] for label in labels})


def measured(encoder: Encoder, evaluators: Mapping[str, Evaluator]) -> dict[str, float]:
    """Figures of evaluators as "label/figure". Random state of torch is put back afterwards."""
    device = encoder.parallelism.device
    figures: dict[str, float] = {}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for label, evaluator in evaluators.items():
            figures.update({f"{label}/{name}": value for name, value in evaluator.evaluate(encoder).items()})
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


@dataclass(frozen=True)
class Features:
    """What is known of images that could be read, in the data set's order: vectors (M, D) float32 on the CPU, and labels. `complete`: no
    readable image was left out."""

    vectors: torch.Tensor
    labels: tuple[Label | None, ...]
    complete: bool

    def labelled(self) -> "Features":
        """Those of images with a label."""
        keep = torch.tensor([label is not None for label in self.labels], dtype=torch.bool)
        labels = tuple(label for label in self.labels if label is not None)
        return self if bool(keep.all()) else Features(self.vectors[keep], labels, False)


def features_of(
    encoder: Encoder, chosen: Chosen, data: Dataset, batch_size: int, images: Sequence[int] | None = None
) -> Features:
    """Features of the labelled images of a data set that can be read; or, labelled or not, of `images`. Raises DataError when there are
    none.

    `data` is what `chosen` builds; evaluators of one round that name the same images share their features.
    """
    which = None if images is None else "every" if len(images) == len(data) else tuple(images)
    key = (chosen.component.name, repr(chosen.options))
    every, labelled = (encoder.seen.get((*key, name)) for name in ("every", None))
    if every and which is None:
        return every.labelled()
    if labelled and which == "every" and labelled.complete:
        return labelled
    if (*key, which) not in encoder.seen:
        encoder.seen[*key, which] = _features(encoder, data, batch_size, images)
    return encoder.seen[*key, which]


def summaries(encoder: Encoder, chosen: Chosen, data: Dataset, batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Summary vectors (M, D) and class numbers (M,) of the labelled images that can be read; see `features_of`."""
    found = features_of(encoder, chosen, data, batch_size)
    return found.vectors, as_tensor(found.labels, "class", 0)


def as_tensor(labels: Sequence[Label | None], kind: LabelKind, classes: int) -> torch.Tensor:
    """Labels (M,) int64 of a class each, (M, classes) bool of several, or (M,) float64 of numbers."""
    if kind != "classes":
        return torch.tensor(labels, dtype=torch.int64 if kind == "class" else torch.float64)
    found = torch.zeros(len(labels), classes, dtype=torch.bool)
    for row, label in enumerate(labels):
        found[row, list(label)] = True  # type: ignore[arg-type]
    return found


def walk(
    encoder: Encoder,
    data: Dataset,
    batch_size: int,
    fault: Callable[[str], None],
    images: Sequence[int] | None = None,
    prepare: Callable[[Item], Item] | None = None,
    wanted: Callable[[Item], bool] = lambda item: True,
) -> Iterator[tuple[list[int], list[Item]]]:
    """Batches of this process's share of a data set: their numbers and prepared items, of one set of channels each. Where processes
    compute together all of them get as many batches, the last ones without numbers and with a blank image, to be encoded all the same."""
    parallelism = encoder.parallelism
    images = range(len(data)) if images is None else images
    mine = images[parallelism.rank :: parallelism.world_size]
    items = read_ahead(data, prepare or encoder.prepare, fault, mine)
    batches = _batches(((index, item) for index, item in items if wanted(item)), batch_size)
    if parallelism.world_size == 1:
        yield from batches
        return
    blank: tuple[list[int], list[Item]] = [], [Item(torch.zeros(encoder.channels, *encoder.preprocessing.crop))]
    batch = next(batches, None)
    while any(parallelism.collect(batch is not None)):  # how many batches the others have is known to none before
        yield batch or blank
        batch = next(batches, None)


def _batches(items: Iterable[tuple[int, Item]], size: int) -> Iterator[tuple[list[int], list[Item]]]:
    numbers: list[int] = []
    batch: list[Item] = []
    for index, item in items:
        if len(batch) == size or (batch and batch[0].channels != item.channels):
            yield numbers, batch
            numbers, batch = [], []
        numbers.append(index)
        batch.append(item)
    if batch:
        yield numbers, batch


def together(parallelism: Parallelism, numbers: Sequence[int], rows: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Tensors whose rows are of the numbered images, on the CPU -> those of all processes, in the order of the numbers."""
    everyone = parallelism.collect((list(numbers), list(rows)))
    if len(everyone) == 1:
        return list(rows)
    order = torch.tensor([number for part, _ in everyone for number in part]).argsort(stable=True)
    some = [parts for part, parts in everyone if part] or [rows]
    return [torch.cat(found)[order] for found in zip(*some)]


def told(encoder: Encoder, faults: Sequence[str], count: int, found: int) -> None:
    """Tell what could not be read of so many images. Raises DataError where nothing was `found`, in all processes."""
    everyone = encoder.parallelism.collect((list(faults), found))
    every = [fault for part, _ in everyone for fault in part]
    encoder.unreadable(every, count)
    if not any(number for _, number in everyone):
        raise DataError(f"none of {count} images can be read" + (f"; the first: {every[0]}" if every else ""))


def _features(encoder: Encoder, data: Dataset, batch_size: int, images: Sequence[int] | None) -> Features:
    """Each process encodes every n-th image, and gets what the others encoded."""
    vectors: list[torch.Tensor] = []
    numbers: list[int] = []
    labels: dict[int, Label | None] = {}
    faults: list[str] = []
    skipped: list[int] = []

    def wanted(item: Item) -> bool:
        if images is None and item.label is None:
            skipped.append(1)
        return images is not None or item.label is not None

    for found, items in walk(encoder, data, batch_size, faults.append, images, wanted=wanted):
        encoded = encoder.encode(items).features.float().cpu()
        if found:
            vectors.append(encoded)
        numbers += found
        labels.update({number: item.label for number, item in zip(found, items)})
    if len({part.shape[1] for part in vectors}) > 1:
        raise DataError(
            "images of different channels have features of different widths with this backbone; evaluate one set of channels at a time"
        )
    told(encoder, faults, len(data) if images is None else len(images), len(numbers))
    rows = together(encoder.parallelism, numbers, [torch.cat(vectors) if vectors else torch.empty(0)])[0]
    everyone = encoder.parallelism.collect((labels, len(skipped)))
    labels = {number: label for part, _ in everyone for number, label in part.items()}
    if not bool(torch.isfinite(rows).all()):
        raise TrainingError(
            "the model's features are not finite: it has diverged; lower optimizer.lr or train in float32"
        )
    complete = not any(count for _, count in everyone) and (images is None or len(images) == len(data))
    return Features(rows, tuple(labels[number] for number in sorted(labels)), complete)
