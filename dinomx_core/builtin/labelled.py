"""What evaluators on labelled images share: a bank to learn from and a query set to judge by."""

from typing import Any

import torch
from torch import Tensor

from dinomx_core.training.construct import construct
from dinomx_core.training.contracts import Dataset, Encoder, Evaluator
from dinomx_core.training.evaluation import summaries


class LabelledEvaluator(Evaluator):
    """`options` has `bank`, `query` and `batch_size`. `classes` are the bank's, by whose numbers all labels go."""

    def __init__(self, options: Any):
        self.options = options
        self.bank: Dataset = construct(options.bank)
        self.query: Dataset = construct(options.query)
        self.classes, query = (c.component.inspect(c.options).classes for c in (options.bank, options.query))
        self.bank_number = torch.tensor([self.classes.index(name) for name in query])

    def features(self, encoder: Encoder) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Summaries (M, D) and labels (M,) of the bank, then of the query set."""
        size = self.options.batch_size
        bank, labels = summaries(encoder, self.options.bank, self.bank, size)
        queries, truth = summaries(encoder, self.options.query, self.query, size)
        return bank, labels, queries, self.bank_number[truth]
