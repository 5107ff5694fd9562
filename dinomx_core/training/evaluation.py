"""Evaluation during a run and of saved models: draws from its own streams and leaves the run as it was."""

from collections.abc import Iterable

import torch
from torch.nn import functional as F

from dinomx_core.declare.components import Preprocessing
from dinomx_core.training.build import Parts
from dinomx_core.training.contracts import Backbone, Encoder, Evaluator
from dinomx_core.training.flow import Item, Tokens
from dinomx_core.training.pixels import normalise, resize, to_float


def preprocess(item: Item, how: Preprocessing) -> torch.Tensor:
    """An image as the model sees it when nothing is random: (C, crop, crop) float32, normalised."""
    image = item.image
    height, width = image.shape[-2:]
    scale = how.resize / min(height, width)
    image = resize(image, (max(how.crop, round(height * scale)), max(how.crop, round(width * scale))))
    top, left = (image.shape[-2] - how.crop) // 2, (image.shape[-1] - how.crop) // 2
    return normalise(to_float(image[:, top : top + how.crop, left : left + how.crop]), how.mean, how.std)


def make_encoder(backbone: Backbone, how: Preprocessing, device: torch.device) -> Encoder:
    """A backbone in evaluation mode, float32, without gradients."""

    def encode(items: Iterable[Item]) -> Tokens:
        pixels = torch.stack([preprocess(item, how) for item in items]).to(device)
        training = backbone.training
        backbone.eval()
        try:
            with torch.inference_mode():
                return backbone(pixels)
        finally:
            backbone.train(training)

    return Encoder(backbone, how, device, encode)


def evaluate(parts: Parts, evaluator: Evaluator) -> dict[str, float]:
    """Measure the teacher. The run's random state is put back afterwards."""
    devices = [parts.device] if parts.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        encoder = make_encoder(parts.teacher.network.backbone, parts.plan.preprocessing, parts.device)
        return evaluator.evaluate(encoder)


def summaries(encoder: Encoder, items: Iterable[Item], batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """L2-normalised summary vectors (M, D) and labels (M,) of labelled images, on the CPU."""
    features: list[torch.Tensor] = []
    labels: list[int] = []
    batch: list[Item] = []

    def flush() -> None:
        if batch:
            features.append(F.normalize(encoder.encode(batch).summary.float(), dim=1).cpu())
            batch.clear()

    for item in items:
        if item.label is not None:
            batch.append(item)
            labels.append(item.label)
        if len(batch) == batch_size:
            flush()
    flush()
    return torch.cat(features), torch.tensor(labels)
