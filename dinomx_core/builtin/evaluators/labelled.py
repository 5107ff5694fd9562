"""What evaluators on labelled images share: a bank to learn from and a query set to judge by."""

from typing import Any

import torch
from torch import Tensor

from dinomx_core.builtin.evaluators.scores import balanced_accuracy, mean_average_precision
from dinomx_core.training.construct import construct
from dinomx_core.training.contracts import Dataset, Encoder, Evaluator
from dinomx_core.training.evaluation import as_tensor, features_of


class LabelledEvaluator(Evaluator):
    """`options` has `bank`, `query` and `batch_size`. `classes` are the bank's, by whose numbers all labels go; `kind`: its label_kind."""

    def __init__(self, options: Any):
        self.options = options
        self.bank: Dataset = construct(options.bank)
        self.query: Dataset = construct(options.query)
        bank, query = (c.component.inspect(c.options) for c in (options.bank, options.query))
        self.classes, self.kind = bank.classes, bank.label_kind
        self.bank_number = [self.classes.index(name) for name in query.classes]

    def features(self, encoder: Encoder) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Summaries (M, D) and labels of the bank, then of the query set: as `as_tensor` gives them."""
        size = self.options.batch_size
        bank = features_of(encoder, self.options.bank, self.bank, size)
        queries = features_of(encoder, self.options.query, self.query, size)
        labels = as_tensor(bank.labels, self.kind, len(self.classes))
        truth: Any = queries.labels
        if self.kind == "class":
            truth = [self.bank_number[label] for label in truth]
        elif self.kind == "classes":
            truth = [tuple(self.bank_number[one] for one in label) for label in truth]
        return bank.vectors, labels, queries.vectors, as_tensor(truth, self.kind, len(self.classes))


def standardised(bank: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    """Features whose bank has mean 0 and standard deviation 1."""
    mean, std = bank.mean(0), bank.std(0).clamp_min(1e-6)
    return (bank - mean) / std, (queries - mean) / std


def spread(count: int, share: float) -> Tensor:
    """(count,) bool: `share` of the rows, evenly spread, but one at the least is chosen and one is left, if there are two."""
    held = torch.zeros(count, dtype=torch.bool)
    chosen = min(max(1, round(share * count)), count - 1)
    held[torch.linspace(0, count - 1, chosen).round().long()] = True
    return held


def holdout(labels: Tensor, share: float) -> Tensor:
    """(M,) bool: `share` of each class, spread evenly over it, but one image at the least is held out and one is left, if there
    are two; of other labels than a class each, `share` of all."""
    if labels.ndim == 2 or labels.is_floating_point():
        return spread(len(labels), share)
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        rows = (labels == label).nonzero()[:, 0]
        held[rows] = spread(len(rows), share)
    return held


def parts(labels: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """(M,) bool each: what is trained on, and what chooses; where nothing can be held out, what was trained on must choose."""
    judging = holdout(labels, share)
    return (~judging, judging) if judging.any() else (~judging, ~judging)


def goodness(scores: Tensor, truth: Tensor) -> float:
    """What the best of several fits has most of: balanced accuracy, mean average precision, or the least squared error."""
    if truth.is_floating_point():
        error = float((scores.double() - truth).square().mean())
        return -error if error == error else float("-inf")
    if truth.ndim == 2:
        return mean_average_precision(scores, truth) if bool(torch.isfinite(scores).all()) else -1.0
    return float(balanced_accuracy(scores.argmax(1), truth))
