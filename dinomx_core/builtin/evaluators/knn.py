"""k-nearest-neighbour evaluation."""

import torch
from torch import Tensor
from torch.nn import functional as F

from dinomx_core.builtin.evaluators.labelled import LabelledEvaluator
from dinomx_core.builtin.evaluators.options import Knn
from dinomx_core.builtin.evaluators.scores import figures_of
from dinomx_core.errors import DataError
from dinomx_core.training.contracts import Encoder
from dinomx_core.training.evaluation import together

QUERIES_AT_ONCE = 1024
SEVERAL_AT_ONCE = 128  # where each neighbour has a row of classes


class KnnEvaluator(LabelledEvaluator):
    """Cosine neighbours vote with exp(cosine / temperature)."""

    options: Knn

    def evaluate(self, encoder: Encoder) -> dict[str, float]:
        """The first figure of `figures_of` for each k ("accuracy@20", "map@20", "r2@20"), and all of them for the largest: scores are a
        class's share of the votes, or the neighbours' mean, weighted by their votes."""
        bank, labels, queries, truth = self.features(encoder)
        bank, queries = F.normalize(bank, dim=1), F.normalize(queries, dim=1)
        ks = sorted(k for k in self.options.k if k <= len(bank))
        if not ks:
            raise DataError(f"only {len(bank)} images of the bank can be read, fewer than k = {min(self.options.k)}")
        parallelism = encoder.parallelism
        mine = range(parallelism.rank, len(queries), parallelism.world_size)
        told: dict[int, list[Tensor]] = {k: [] for k in ks}
        at_once = SEVERAL_AT_ONCE if labels.ndim == 2 else QUERIES_AT_ONCE
        for part in queries[mine.start :: mine.step].split(at_once):
            cosine, neighbours = (part @ bank.T).topk(max(ks), dim=1)
            votes = (cosine / self.options.temperature).exp()
            for k in ks:
                told[k].append(shares(votes[:, :k], labels[neighbours[:, :k]], len(self.classes)))
        found = together(parallelism, mine, [torch.cat(told[k]) for k in ks] if len(mine) else [])
        figures: dict[str, float] = {}
        for k, scores in zip(ks, found):
            named = figures_of(scores, truth, f"@{k}")
            figures.update(named if k == ks[-1] else dict(list(named.items())[:1]))
        return figures


def shares(votes: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Votes (B, k) and the neighbours' labels -> each class's share of the votes (B, classes), or numbers' weighted mean (B,) float64."""
    if labels.is_floating_point():
        weights = votes.double()
        return (weights * labels).sum(1) / weights.sum(1)
    if labels.ndim == 3:
        return torch.bmm(votes[:, None], labels.float())[:, 0] / votes.sum(1, keepdim=True)
    scores = torch.zeros(len(votes), classes)
    scores.scatter_add_(1, labels, votes)
    return scores / scores.sum(1, keepdim=True)
