"""k-nearest-neighbour evaluation."""

import torch
from torch.nn import functional as F

from dinomx_core.builtin.plugin import Knn
from dinomx_core.errors import DataError
from dinomx_core.training.build import construct
from dinomx_core.training.contracts import Dataset, Encoder, Evaluator
from dinomx_core.training.evaluation import summaries

QUERIES_AT_ONCE = 1024


class KnnEvaluator(Evaluator):
    """Cosine neighbours vote with exp(cosine / temperature)."""

    def __init__(self, options: Knn):
        self.options = options
        self.bank: Dataset = construct(options.bank)
        self.query: Dataset = construct(options.query)
        bank, query = (c.component.inspect(c.options).classes for c in (options.bank, options.query))
        self.bank_number = torch.tensor([bank.index(name) for name in query])

    def evaluate(self, encoder: Encoder) -> dict[str, float]:
        """{"accuracy@k": share of queries classified rightly} for each k."""
        size = self.options.batch_size
        bank, labels = summaries(encoder, self.options.bank, self.bank, size)
        queries, truth = summaries(encoder, self.options.query, self.query, size)
        bank, queries = F.normalize(bank, dim=1), F.normalize(queries, dim=1)
        truth = self.bank_number[truth]
        ks = [k for k in self.options.k if k <= len(bank)]
        if not ks:
            raise DataError(f"only {len(bank)} images of the bank can be read, fewer than k = {min(self.options.k)}")
        right = dict.fromkeys(ks, 0)
        classes = int(max(labels.max(), truth.max())) + 1
        for first in range(0, len(queries), QUERIES_AT_ONCE):
            part, answer = queries[first : first + QUERIES_AT_ONCE], truth[first : first + QUERIES_AT_ONCE]
            cosine, neighbours = (part @ bank.T).topk(max(ks), dim=1)
            votes = (cosine / self.options.temperature).exp()
            for k in ks:
                scores = torch.zeros(len(part), classes)
                scores.scatter_add_(1, labels[neighbours[:, :k]], votes[:, :k])
                right[k] += int((scores.argmax(1) == answer).sum())
        return {f"accuracy@{k}": right[k] / len(queries) for k in ks}
