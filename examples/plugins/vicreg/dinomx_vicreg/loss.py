"""The VICReg loss (Bardes, Ponce & LeCun 2022, equations 1 to 6, with the means of algorithm 1)."""

import torch
from torch import Tensor

from dinomx_core.training.contracts import Loss, LossContext, LossResult, Outputs, Scheduled
from dinomx_core.training.flow import Views, at_least_float32
from dinomx_vicreg import plugin


def invariance(rows: Tensor) -> Tensor:
    """Mean squared distance of a feature (V, B, K) over all pairs of an image's crops: twice its variance over them."""
    return 2 * rows.var(0).mean()


def deviations(everyone: Tensor, eps: float) -> Tensor:
    """Standard deviation over the batch (V, K) of rows (V, n, K)."""
    return (everyone.var(1) + eps).sqrt()


def covariance(everyone: Tensor) -> Tensor:
    """Squared covariances between different features of rows (V, n, K), summed over K^2 and divided by K (V,)."""
    centred = everyone - everyone.mean(1, keepdim=True)
    matrix = centred.transpose(1, 2) @ centred / (everyone.shape[1] - 1)
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    return (matrix.square().sum((1, 2)) - diagonal.square().sum(1)) / everyone.shape[2]


class VicregLoss(Loss):
    """Invariance between crops, variance and covariance over the images of all processes."""

    def __init__(self, options: "plugin.Vicreg", context: LossContext):
        super().__init__()
        self.options, self.parallelism = options, context.parallelism
        (self.request,) = plugin.requests(options)

    def forward(self, outputs: Outputs, views: Views, values: Scheduled) -> LossResult:
        """The terms are told apart, unweighted, and `std`, the mean standard deviation of a feature.

        Variance and covariance are twice their mean over the crops: with two crops their sum, as in equation 6.
        """
        options = self.options
        rows: Tensor = outputs[self.request]
        with torch.autocast(rows.device.type, enabled=False):
            rows = at_least_float32(rows)
            # one exchange for all crops: (B, V * K) of each process
            everyone = self.parallelism.gather(rows.transpose(0, 1).flatten(1)).unflatten(1, (len(rows), -1))
            everyone = everyone.transpose(0, 1)
            spread = deviations(everyone, options.eps)
            terms = {
                "invariance": invariance(rows),
                "variance": 2 * (options.margin - spread).relu().mean(),
                "covariance": 2 * covariance(everyone).mean(),
            }
            total = sum(getattr(options, name) * term for name, term in terms.items())
        assert isinstance(total, Tensor)
        return LossResult(
            total, {**{name: term.detach() for name, term in terms.items()}, "std": spread.detach().mean()}
        )
