"""The evaluator."""

import torch
from torch import Tensor
from torch.nn import functional as F

from dinomx_core.training.construct import construct
from dinomx_core.training.contracts import Dataset, Encoder, Evaluator
from dinomx_core.training.evaluation import features_of
from dinomx_my_name import plugin


def uniformity(features: Tensor) -> float:
    """-log of the mean of exp(-2 |x - y|^2) over pairs of features (M, D) on the unit sphere; 0 where all are the same."""
    return -float(torch.pdist(F.normalize(features, dim=1)).square().mul(-2).exp().mean().log())


class MyNameEvaluator(Evaluator):
    """Of a figure more is better; one that only informs is called "info/…"."""

    def __init__(self, options: "plugin.MyName"):
        self.options = options
        self.data: Dataset = construct(options.data)

    def evaluate(self, encoder: Encoder) -> dict[str, float]:
        """{"uniformity": from 0 to 8}. The encoder leaves the run as it was; each process encodes its share."""
        o, first = self.options, range(min(self.options.images, len(self.data)))
        found = features_of(encoder, o.data, self.data, o.batch_size, first)
        return {"uniformity": uniformity(found.vectors), "info/images": float(len(found.vectors))}
