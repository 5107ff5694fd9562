"""RankMe: the effective rank of features."""

import torch
from torch import Tensor

from dinomx_core.builtin.evaluators.options import RankMe
from dinomx_core.builtin.evaluators.unlabelled import OneSetEvaluator
from dinomx_core.declare.figures import INFO
from dinomx_core.training.contracts import Encoder

EPSILON = 1e-7


def rankme(vectors: Tensor) -> float:
    """exp(-sum_k p_k log p_k) with p_k = sigma_k / sum(sigma) + epsilon, sigma the singular values of vectors (M, D), not centred (Garrido
    et al. 2023, equation 1)."""
    values = torch.linalg.svdvals(vectors.double())
    shares = values / values.sum().clamp_min(1e-300) + EPSILON
    return float(torch.special.entr(shares).sum().exp())


class RankMeEvaluator(OneSetEvaluator):
    """The effective rank of the features as they are, of as many images as the paper takes."""

    options: RankMe

    def evaluate(self, encoder: Encoder) -> dict[str, float]:
        """{"rankme": from 1 to the smaller of images and dimension; "info/dimension": of the features, "info/images"}. The first process
        takes the singular values for all."""
        vectors = self.features(encoder).vectors
        found = rankme(vectors) if encoder.parallelism.rank == 0 else 0.0
        found = encoder.parallelism.collect(found)[0]
        return {"rankme": found, f"{INFO}dimension": float(vectors.shape[1]), f"{INFO}images": float(len(vectors))}
