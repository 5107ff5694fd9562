"""Evaluation during a run and of saved models: draws from its own streams and leaves the run as it was."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from dinomx_core.declare.facts import Preprocessing
from dinomx_core.declare.values import Chosen
from dinomx_core.errors import DataError, TrainingError
from dinomx_core.training.backbone import Backbone
from dinomx_core.training.build import Parts
from dinomx_core.training.contracts import Dataset, Encoder
from dinomx_core.training.flow import Item, Tokens
from dinomx_core.training.pixels import normalise, resize, to_float

READERS, READ_AHEAD = 4, 64  # threads, and items that wait at most


def preprocess(item: Item, how: Preprocessing) -> torch.Tensor:
    """An image as the model sees it when nothing is random: (C, height, width) of the crop, float32, normalised."""
    image, (high, wide) = item.image, how.crop
    height, width = image.shape[-2:]
    scale = max(high / height, wide / width) * how.resize / min(how.crop)
    image = resize(image, (max(high, round(height * scale)), max(wide, round(width * scale))))
    top, left = (image.shape[-2] - high) // 2, (image.shape[-1] - wide) // 2
    return normalise(to_float(image[:, top : top + high, left : left + wide]), how.mean, how.std)


def make_encoder(
    backbone: Backbone,
    how: Preprocessing,
    device: torch.device,
    unreadable: Callable[[list[str], int], None] = lambda faults, count: None,
) -> Encoder:
    """A backbone in evaluation mode, float32, without gradients."""

    def encode(items: Iterable[Item]) -> Tokens:
        pixels = torch.stack([preprocess(item, how) for item in items]).to(device)
        modes = [(module, module.training) for module in backbone.modules()]
        backbone.eval()
        try:
            with torch.inference_mode():
                return backbone(pixels)
        finally:
            for module, training in modes:
                module.training = training

    return Encoder(backbone, how, device, encode, unreadable)


def evaluate(parts: Parts, labels: Iterable[str], unreadable: Callable[[list[str], int], None]) -> dict[str, float]:
    """Measure the teacher with some of the run's evaluators: figures as "label/figure". `unreadable` is told what could not be
    read of so many images. The run's random state is put back afterwards."""
    devices = [parts.device] if parts.device.type == "cuda" else []
    figures: dict[str, float] = {}
    with torch.random.fork_rng(devices=devices):
        encoder = make_encoder(parts.teacher.network.backbone, parts.plan.preprocessing, parts.device, unreadable)
        for label in labels:
            found = parts.evaluators[label].evaluate(encoder)
            figures.update({f"{label}/{name}": value for name, value in found.items()})
    return figures


def read_ahead(data: Dataset, fault: Callable[[str], None]) -> Iterator[Item]:
    """A data set's items in order, read by a few threads ahead of their use; `fault` is told of those that cannot be read."""
    with ThreadPoolExecutor(READERS) as pool:
        waiting: deque[Future[Item]] = deque()
        for index in range(len(data)):
            waiting.append(pool.submit(data.__getitem__, index))
            if len(waiting) > READ_AHEAD:
                yield from _read(waiting.popleft(), fault)
        while waiting:
            yield from _read(waiting.popleft(), fault)


def _read(future: Future[Item], fault: Callable[[str], None]) -> Iterator[Item]:
    try:
        yield future.result()
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
    features: list[torch.Tensor] = []
    labels: list[int] = []
    batch: list[Item] = []
    faults: list[str] = []

    def flush() -> None:
        if batch:
            features.append(encoder.encode(batch).summary.float().cpu())
            batch.clear()

    for item in read_ahead(data, faults.append):
        if item.label is not None:
            batch.append(item)
            labels.append(item.label)
        if len(batch) == batch_size:
            flush()
    flush()
    encoder.unreadable(faults, len(data))
    if not labels:
        raise DataError(f"none of {len(data)} images can be read" + (f"; the first: {faults[0]}" if faults else ""))
    result = torch.cat(features)
    if not bool(torch.isfinite(result).all()):
        raise TrainingError(
            "the model's features are not finite: it has diverged; lower optimizer.lr or train in float32"
        )
    return result, torch.tensor(labels)
