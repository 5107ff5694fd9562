"""Linear classification and regression on frozen features."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from dinomx_core.builtin.evaluators.labelled import LabelledEvaluator, goodness, parts, standardised
from dinomx_core.builtin.evaluators.options import Linear
from dinomx_core.builtin.evaluators.scores import figures_of
from dinomx_core.planning.seeds import seed_of
from dinomx_core.training.contracts import Encoder

MOMENTUM = 0.9
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)  # of a ridge regression, times the number of images


class LinearEvaluator(LabelledEvaluator):
    """One linear layer a learning rate (or a penalty), all on the bank; a held-out part of it chooses, the query set judges."""

    options: Linear

    def evaluate(self, encoder: Encoder) -> dict[str, float]:
        """`figures_of` the layer's outputs, of a class each after a softmax."""
        o = self.options
        features, labels, queries, truth = self.features(encoder)
        features, queries = standardised(features, queries)
        training, judging = parts(labels, o.holdout)
        if labels.is_floating_point():
            weights, biases = ridge(features[training], labels[training])
        else:
            weights, biases = fit(features[training], labels[training], len(self.classes), o.lr, o.epochs, o.batch_size)
        best = chosen(weights, biases, features[judging], labels[judging])
        outputs = queries.to(weights.dtype) @ weights[best] + biases[best]
        if self.kind == "number":
            return figures_of(outputs[:, 0], truth)
        return figures_of(outputs.softmax(1) if self.kind == "class" else outputs, truth)


def chosen(weights: Tensor, biases: Tensor, features: Tensor, truth: Tensor) -> int:
    """Which of several layers does best."""
    features = features.to(weights.dtype)
    outputs = (features @ w + b for w, b in zip(weights, biases))
    scores = [goodness(output[:, 0] if truth.is_floating_point() else output, truth) for output in outputs]
    return scores.index(max(scores))


def ridge(features: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Ridge regressions, one for each of the L penalties: features (M, D), numbers (M,) -> weights (L, D, 1), biases (L, 1, 1), float64."""
    x, shift = features.double(), features.double().mean(0)
    x = x - shift
    values, vectors = torch.linalg.eigh(x.T @ x)
    onto = vectors.T @ (x.T @ (numbers - numbers.mean()))
    weights = torch.stack([vectors @ (onto / (values.clamp_min(0) + p * len(x))) for p in PENALTIES])[..., None]
    return weights, numbers.mean() - (shift @ weights)[:, None]


def fit(
    features: Tensor, labels: Tensor, classes: int, lr: Sequence[float], epochs: int, batch_size: int
) -> tuple[Tensor, Tensor]:
    """Softmax regression (of several classes an image, a logistic one for each) by SGD with momentum and a cosine schedule: features
    (M, D), labels (M,) or (M, classes) bool -> weights (L, D, classes) and biases (L, 1, classes), one for each of the L learning rates."""
    lrs = torch.tensor(lr).view(-1, 1, 1)
    weights = torch.zeros(len(lrs), features.shape[1], classes)
    biases = torch.zeros(len(lrs), 1, classes)
    moved = [torch.zeros_like(weights), torch.zeros_like(biases)]
    batch = min(batch_size, len(features))
    steps = epochs * (len(features) // batch)
    generator = torch.Generator().manual_seed(seed_of("linear", len(features)))
    order = torch.empty(0, dtype=torch.int64)
    for step in range(steps):
        if len(order) < batch:
            order = torch.randperm(len(features), generator=generator)
        rows, order = order[:batch], order[batch:]
        x, outputs = features[rows], features[rows] @ weights + biases
        if labels.ndim == 2:
            error = (outputs.sigmoid() - labels[rows].float()) / batch
        else:
            error = (
                outputs.softmax(-1) - F.one_hot(labels[rows], classes).float()
            ) / batch  # d(cross-entropy) / d(logits)
        scale = lrs * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / steps)))
        for value, gradient, momentum in zip((weights, biases), (x.T @ error, error.sum(1, keepdim=True)), moved):
            momentum.mul_(MOMENTUM).add_(gradient)
            value.sub_(scale * momentum)
    return weights, biases
