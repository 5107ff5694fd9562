"""How far features stay the same where the image means the same."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from dinomx_core.builtin.evaluators.options import Robustness
from dinomx_core.builtin.evaluators.unlabelled import OneSetEvaluator
from dinomx_core.training.contracts import Encoder
from dinomx_core.training.evaluation import together, told, walk
from dinomx_core.training.flow import Item
from dinomx_core.training.pixels import to_float


class RobustnessEvaluator(OneSetEvaluator):
    """Nothing is drawn: every image is changed in the same ways."""

    options: Robustness

    def evaluate(self, encoder: Encoder) -> dict[str, float]:
        """{"flip", "rotation", "intensity": mean cosine between the features of images as they are and changed so}."""
        names = [name for name, _ in self.changed(Item(torch.zeros(1, 2, 2)))]
        numbers: list[int] = []
        rows = [torch.empty(0, len(names))]
        faults: list[str] = []
        for found, items in walk(encoder, self.data, self.options.batch_size, faults.append, self.images):
            plain = encoder.encode(items).features.float()
            variants = zip(*(self.changed(item) for item in items))
            encoded = [encoder.encode(item for _, item in variant).features.float() for variant in variants]
            cosines = torch.stack([F.cosine_similarity(plain, other, dim=1) for other in encoded], 1)
            rows.append(cosines[: len(found)].cpu())
            numbers += found
        told(encoder, faults, len(self.images), len(numbers))
        means = together(encoder.parallelism, numbers, [torch.cat(rows)])[0].double().mean(0)
        of = {name: [float(mean) for own, mean in zip(names, means) if own == name] for name in dict.fromkeys(names)}
        return {name: sum(values) / len(values) for name, values in of.items()}

    def changed(self, item: Item) -> Iterator[tuple[str, Item]]:
        """A prepared image in its variants, each with the name of its figure."""
        image, jitter = to_float(item.image), self.options.jitter
        plain = item.image if item.image.dtype == torch.uint8 else image  # torch turns no uint16
        yield "flip", replace(item, image=plain.flip(-1))
        for angle in self.options.rotation:
            yield "rotation", replace(item, image=plain.rot90(angle // 90, (-2, -1)))
        whole = item.image.dtype in (torch.uint8, torch.uint16)
        for contrast, brightness in ((1 + jitter, 0.0), (1 - jitter, 0.0), (1.0, jitter), (1.0, -jitter)):
            yield "intensity", replace(item, image=shifted(image, contrast, brightness, whole))


def shifted(image: Tensor, contrast: float, brightness: float, whole: bool) -> Tensor:
    """Contrast around the mean, brightness in standard deviations; kept within 0..1 where the image was of whole numbers, or lies there."""
    mean, std = image.mean(), image.std(correction=0)
    changed = (image - mean) * contrast + mean + brightness * std
    within = whole or (float(image.min()) >= 0 and float(image.max()) <= 1)
    return changed.clamp(0, 1) if within else changed
