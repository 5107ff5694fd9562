"""Segmentation by a linear layer on patches."""

import torch
from torch import Tensor

from dinomx_core.builtin.evaluators.dense import DenseEvaluator
from dinomx_core.builtin.evaluators.labelled import spread, standardised
from dinomx_core.builtin.evaluators.linear import chosen, fit
from dinomx_core.builtin.evaluators.options import DenseLinear
from dinomx_core.training.contracts import Encoder

PATCHES_A_STEP = 1024


class DenseLinearEvaluator(DenseEvaluator):
    """One linear layer a learning rate, all on the bank's patches; those of held-out images choose, by the mean recall of the classes."""

    options: DenseLinear

    def evaluate(self, encoder: Encoder) -> dict[str, float]:
        """`overlaps` of all the query's pixels, and "info/without_masks", images of both sets that were left out."""
        o, bank = self.options, self.learn(encoder)
        classes, which = bank.labels.unique(return_inverse=True)
        features, _ = standardised(bank.patches, bank.patches[:1])
        training, judging = by_image(bank.images, o.holdout)
        weights, biases = fit(features[training], which[training], len(classes), o.lr, o.epochs, PATCHES_A_STEP)
        best = chosen(weights, biases, features[judging], which[judging])

        def tell(patches: Tensor) -> Tensor:
            return standardised(bank.patches, patches)[1] @ weights[best] + biases[best]

        return self.judge(encoder, classes, tell)


def by_image(images: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """(P,) bool each: patches that are trained on, and those that choose, a `share` of the images; of one image all do both."""
    numbers = images.unique()
    held = torch.isin(images, numbers[spread(len(numbers), share)])
    return (~held, held) if held.any() else (~held, ~held)
