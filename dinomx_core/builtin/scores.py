"""How good a classification is, where classes differ in size."""

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor


def balanced_accuracy(chosen: Tensor, truth: Tensor) -> Tensor:
    """Mean over the classes that there are of the share of their images classified rightly."""
    right = (chosen == truth).float()
    return torch.stack([right[truth == label].mean() for label in truth.unique()]).mean()


def auroc(probabilities: Tensor, truth: Tensor) -> float:
    """Area under the ROC curve, one class against the rest, mean over the classes that have images on both sides."""
    present = [int(label) for label in truth.unique() if not bool((truth == label).all())]
    areas = [roc_auc_score((truth == label).numpy(), probabilities[:, label].numpy()) for label in present]
    return float(sum(areas) / len(areas)) if areas else 0.5
