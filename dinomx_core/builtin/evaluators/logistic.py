"""Logistic regression on frozen features."""

import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from dinomx_core.builtin.evaluators.labelled import LabelledEvaluator, goodness, parts, standardised
from dinomx_core.builtin.evaluators.options import Logistic
from dinomx_core.builtin.evaluators.scores import figures_of
from dinomx_core.training.contracts import Encoder


class LogisticEvaluator(LabelledEvaluator):
    """scikit-learn's logistic regression; a held-out part of the bank chooses C, then all of it is fitted to."""

    options: Logistic

    def evaluate(self, encoder: Encoder) -> dict[str, float]:
        """`figures_of` the probabilities of the classes. The first process fits for all."""
        features, labels, queries, truth = self.features(encoder)
        features, queries = standardised(features, queries)
        figures = {}
        if encoder.parallelism.rank == 0:
            scores = self.fitted(features, labels, self.best(features, labels), queries)
            figures = figures_of(scores, truth)
        return encoder.parallelism.collect(figures)[0]

    def best(self, features: Tensor, labels: Tensor) -> float:
        """The C that does best on the held-out part."""
        o = self.options
        if len(o.C) == 1:
            return o.C[0]
        training, judging = parts(labels, o.holdout)
        found = [
            goodness(self.fitted(features[training], labels[training], c, features[judging]), labels[judging])
            for c in o.C
        ]
        return o.C[found.index(max(found))]

    def fitted(self, features: Tensor, labels: Tensor, c: float, queries: Tensor) -> Tensor:
        """Probabilities (Q, classes) of queries."""
        classes = len(self.classes)
        if labels.ndim == 2:
            return torch.stack(
                [self.probabilities(features, labels[:, n].long(), c, queries, 2)[:, 1] for n in range(classes)], 1
            )
        return self.probabilities(features, labels, c, queries, classes)

    def probabilities(self, features: Tensor, labels: Tensor, c: float, queries: Tensor, classes: int) -> Tensor:
        """The same of a class each; a class without images has none."""
        found = torch.zeros(len(queries), classes)
        present = labels.unique()
        if len(present) == 1:
            found[:, int(present[0])] = 1
            return found
        model = LogisticRegression(C=c, max_iter=self.options.iterations)
        with warnings.catch_warnings():  # the best of several is taken, whether it has come to its end or not
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(features.numpy().astype(np.float64), labels.numpy())
        told = model.predict_proba(queries.numpy().astype(np.float64))
        found[:, torch.from_numpy(model.classes_)] = torch.from_numpy(told).float()
        return found
