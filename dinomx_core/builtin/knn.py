"""k-nearest-neighbour evaluation."""

import torch
from torch.nn import functional as F

from dinomx_core.builtin.labelled import LabelledEvaluator
from dinomx_core.builtin.plugin import Knn
from dinomx_core.errors import DataError
from dinomx_core.training.contracts import Encoder

QUERIES_AT_ONCE = 1024


class KnnEvaluator(LabelledEvaluator):
    """Cosine neighbours vote with exp(cosine / temperature)."""

    options: Knn

    def evaluate(self, encoder: Encoder) -> dict[str, float]:
        """{"accuracy@k": share of queries classified rightly} for each k."""
        bank, labels, queries, truth = self.features(encoder)
        bank, queries = F.normalize(bank, dim=1), F.normalize(queries, dim=1)
        ks = [k for k in self.options.k if k <= len(bank)]
        if not ks:
            raise DataError(f"only {len(bank)} images of the bank can be read, fewer than k = {min(self.options.k)}")
        right = dict.fromkeys(ks, 0)
        classes = int(max(labels.max(), truth.max())) + 1
        asked, parallelism = len(queries), encoder.parallelism
        queries, truth = (rows[parallelism.rank :: parallelism.world_size] for rows in (queries, truth))
        for first in range(0, len(queries), QUERIES_AT_ONCE):
            part, answer = queries[first : first + QUERIES_AT_ONCE], truth[first : first + QUERIES_AT_ONCE]
            cosine, neighbours = (part @ bank.T).topk(max(ks), dim=1)
            votes = (cosine / self.options.temperature).exp()
            for k in ks:
                scores = torch.zeros(len(part), classes)
                scores.scatter_add_(1, labels[neighbours[:, :k]], votes[:, :k])
                right[k] += int((scores.argmax(1) == answer).sum())
        everyone = parallelism.collect(right)
        return {f"accuracy@{k}": sum(part[k] for part in everyone) / asked for k in ks}
