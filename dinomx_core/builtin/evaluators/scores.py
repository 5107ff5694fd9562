"""Figures of predictions: classes that differ in size, several classes an image, numbers, overlaps."""

from collections.abc import Mapping

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from dinomx_core.declare.figures import INFO


def balanced_accuracy(chosen: Tensor, truth: Tensor) -> Tensor:
    """Mean over the classes that there are of the share of their images classified rightly."""
    right = (chosen == truth).float()
    return torch.stack([right[truth == label].mean() for label in truth.unique()]).mean()


def auroc(probabilities: Tensor, truth: Tensor) -> float:
    """Area under the ROC curve, one class against the rest, mean over the classes that have images on both sides; 0.5 where none has.
    probabilities (M, C), truth (M,) numbers or (M, C) bool."""
    members = truth if truth.ndim == 2 else truth[:, None] == torch.arange(probabilities.shape[1])
    present = [c for c in range(members.shape[1]) if 0 < int(members[:, c].sum()) < len(members)]
    areas = [roc_auc_score(members[:, label].numpy(), probabilities[:, label].numpy()) for label in present]
    return float(sum(areas) / len(areas)) if areas else 0.5


def mean_average_precision(scores: Tensor, truth: Tensor) -> float:
    """Average precision of each class, mean over the classes that have images; 0 where none has. scores, truth (M, C)."""
    present = [c for c in range(truth.shape[1]) if bool(truth[:, c].any())]
    found = [average_precision_score(truth[:, c].numpy(), scores[:, c].numpy()) for c in present]
    return float(sum(found) / len(found)) if found else 0.0


def r2(told: Tensor, truth: Tensor) -> float:
    """Share of the variance that predictions explain, below 0 where the mean is better; 0 where there is no variance."""
    spread = (truth - truth.mean()).square().sum()
    return float(1 - (truth - told).square().sum() / spread) if float(spread) > 0 else 0.0


def ranks(values: Tensor) -> Tensor:
    """Places of values in their order, the mean of them for equal ones."""
    _, inverse, counts = np.unique(values.numpy(), return_inverse=True, return_counts=True)
    return torch.from_numpy((np.cumsum(counts) - (counts - 1) / 2)[inverse.reshape(-1)])


def spearman(told: Tensor, truth: Tensor) -> float:
    """Correlation of ranks; 0 where all of one side are equal."""
    one, other = (ranks(values) for values in (told, truth))
    one, other = one - one.mean(), other - other.mean()
    length = float(one.norm() * other.norm())
    return float(one @ other) / length if length > 0 else 0.0


def figures_of(scores: Tensor, truth: Tensor, end: str = "") -> dict[str, float]:
    """Figures by the kind of label, their names ending in `end`. Classes (M,) int64, scores (M, C): accuracy, balanced_accuracy, auroc.
    Several (M, C) bool, scores (M, C): map (mean average precision), auroc. Numbers (M,) float64, scores (M,): r2, spearman,
    info/mae."""
    if truth.is_floating_point():
        told = scores.double()
        error = float((told - truth).abs().mean())
        return {f"r2{end}": r2(told, truth), f"spearman{end}": spearman(told, truth), f"{INFO}mae{end}": error}
    if truth.ndim == 2:
        return {f"map{end}": mean_average_precision(scores, truth), f"auroc{end}": auroc(scores, truth)}
    chosen = scores.argmax(1)
    return {
        f"accuracy{end}": int((chosen == truth).sum()) / len(truth),
        f"balanced_accuracy{end}": float(balanced_accuracy(chosen, truth)),
        f"auroc{end}": auroc(scores, truth),
    }


def overlaps(confusion: Mapping[tuple[int, int], int]) -> dict[str, float]:
    """(true class, told class) -> pixels, in; out "miou" and "mdice", means over the classes that pixels are of or are told to be of, and
    "iou/CLASS", "dice/CLASS" of each."""
    classes = sorted({number for pair in confusion for number in pair})
    iou, dice = {}, {}
    for number in classes:
        both = confusion.get((number, number), 0)
        true = sum(count for (own, _), count in confusion.items() if own == number)
        told = sum(count for (_, own), count in confusion.items() if own == number)
        iou[f"iou/{number}"], dice[f"dice/{number}"] = both / (true + told - both), 2 * both / (true + told)
    means = {"miou": sum(iou.values()) / len(classes), "mdice": sum(dice.values()) / len(classes)}
    return {**means, **iou, **dice}
