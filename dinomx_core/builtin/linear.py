"""Linear classification on frozen features."""

import torch
from torch import Tensor
from torch.nn import functional as F

from dinomx_core.builtin.labelled import LabelledEvaluator
from dinomx_core.builtin.scores import auroc, balanced_accuracy
from dinomx_core.builtin.scoring import Linear
from dinomx_core.planning.seeds import seed_of
from dinomx_core.training.contracts import Encoder

MOMENTUM = 0.9


class LinearEvaluator(LabelledEvaluator):
    """One linear layer a learning rate, all trained at once on the bank; a held-out part of it chooses, the query set judges."""

    options: Linear

    def evaluate(self, encoder: Encoder) -> dict[str, float]:
        """{"accuracy", "balanced_accuracy": mean recall of the classes, "auroc": mean over classes of one against the rest}."""
        o = self.options
        features, labels, queries, truth = self.features(encoder)
        mean, std = features.mean(0), features.std(0).clamp_min(1e-6)
        features, queries = (features - mean) / std, (queries - mean) / std
        judging = holdout(labels, o.holdout)
        training = ~judging
        if not judging.any():  # one image a class: what it was trained on must choose
            judging = training
        weights, biases = fit(features[training], labels[training], len(self.classes), o)
        judged, wanted = features[judging], labels[judging]
        scores = [float(balanced_accuracy((judged @ w + b).argmax(1), wanted)) for w, b in zip(weights, biases)]
        best = scores.index(max(scores))
        logits = queries @ weights[best] + biases[best]
        chosen = logits.argmax(1)
        return {
            "accuracy": float((chosen == truth).float().mean()),
            "balanced_accuracy": float(balanced_accuracy(chosen, truth)),
            "auroc": auroc(logits.softmax(1), truth),
        }


def holdout(labels: Tensor, share: float) -> Tensor:
    """(M,) bool: `share` of each class, spread evenly over it, but one image at the least is held out and one is left, if there
    are two."""
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        rows = (labels == label).nonzero()[:, 0]
        count = min(max(1, round(share * len(rows))), len(rows) - 1)
        held[rows[torch.linspace(0, len(rows) - 1, count).round().long()]] = True
    return held


def fit(features: Tensor, labels: Tensor, classes: int, options: Linear) -> tuple[Tensor, Tensor]:
    """Softmax regression by SGD with momentum and a cosine schedule: features (M, D), labels (M,) -> weights (L, D, classes) and
    biases (L, 1, classes), one for each of the L learning rates."""
    lrs = torch.tensor(options.lr).view(-1, 1, 1)
    weights = torch.zeros(len(lrs), features.shape[1], classes)
    biases = torch.zeros(len(lrs), 1, classes)
    moved = [torch.zeros_like(weights), torch.zeros_like(biases)]
    batch = min(options.batch_size, len(features))
    steps = options.epochs * (len(features) // batch)
    generator = torch.Generator().manual_seed(seed_of("linear", len(features)))
    order = torch.empty(0, dtype=torch.int64)
    for step in range(steps):
        if len(order) < batch:
            order = torch.randperm(len(features), generator=generator)
        rows, order = order[:batch], order[batch:]
        x, wanted = features[rows], F.one_hot(labels[rows], classes).float()
        error = ((x @ weights + biases).softmax(-1) - wanted) / batch  # d(cross-entropy) / d(logits)
        scale = lrs * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / steps)))
        for value, gradient, momentum in zip((weights, biases), (x.T @ error, error.sum(1, keepdim=True)), moved):
            momentum.mul_(MOMENTUM).add_(gradient)
            value.sub_(scale * momentum)
    return weights, biases
