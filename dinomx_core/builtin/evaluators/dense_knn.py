"""Segmentation by nearest neighbours of patches."""

import torch
from torch import Tensor
from torch.nn import functional as F

from dinomx_core.builtin.evaluators.dense import DenseEvaluator
from dinomx_core.builtin.evaluators.options import DenseKnn
from dinomx_core.training.contracts import Encoder


class DenseKnnEvaluator(DenseEvaluator):
    """Cosine neighbours among the bank's patches vote with exp(cosine / temperature)."""

    options: DenseKnn

    def evaluate(self, encoder: Encoder) -> dict[str, float]:
        """`overlaps` of all the query's pixels, and "info/without_masks", images of both sets that were left out."""
        bank, device = self.learn(encoder), encoder.parallelism.device
        classes, which = bank.labels.unique(return_inverse=True)
        features = F.normalize(bank.patches, dim=1).to(device)
        members = F.one_hot(which, len(classes)).float().to(device)
        k = min(self.options.k, len(features))

        def tell(patches: Tensor) -> Tensor:
            cosine, neighbours = (F.normalize(patches.to(device), dim=1) @ features.T).topk(k, dim=1)
            votes = (cosine / self.options.temperature).exp()
            return torch.bmm(votes[:, None], members[neighbours])[:, 0] / votes.sum(1, keepdim=True)

        return self.judge(encoder, classes, tell)
