"""The KoLeo regulariser."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from dinomx_core.training.contracts import Loss, LossContext, LossResult, Outputs, Scheduled
from dinomx_core.training.flow import Views, at_least_float32
from dinomx_dinov2 import plugin

EPS = 1e-8
DUPLICATE = 1e-6  # distance of unit vectors below which float32 tells nothing of its direction


def nearest_distances(rows: Tensor, everyone: Tensor, first: int, neighbours: int, group: int) -> tuple[Tensor, Tensor]:
    """Distances (B, k) of L2-normalised rows (B, D) to the nearest of everyone (M, D), among whom row i is number first + i; and
    which of them (B, k) there are: a row may have fewer neighbours than k.

    k is `neighbours`, or M - 1 where that is less; with `group` only rows of the same group in succession are neighbours.
    """
    rows, everyone = F.normalize(at_least_float32(rows), eps=EPS), F.normalize(at_least_float32(everyone), eps=EPS)
    own = torch.arange(first, first + len(rows), device=rows.device)
    other = torch.arange(len(everyone), device=rows.device)
    with torch.no_grad():
        apart = own[:, None] == other[None]
        if group:
            apart |= own[:, None] // group != other[None] // group
        cosines = (rows @ everyone.T).masked_fill(apart, -torch.inf)
        found, nearest = cosines.topk(min(neighbours, len(everyone) - 1), dim=1)
    distances = F.pairwise_distance(rows[:, None].expand(-1, nearest.shape[1], -1), everyone[nearest], eps=EPS)
    return distances, found > -torch.inf


class KoleoLoss(Loss):
    """-log of the distance to the nearest neighbours, its mean over a crop's images, summed over the crops."""

    def __init__(self, options: "plugin.Koleo", context: LossContext):
        super().__init__()
        self.options, self.parallelism = options, context.parallelism
        (self.request,) = plugin.koleo_requests(options)

    def forward(self, outputs: Outputs, views: Views, values: Scheduled) -> LossResult:
        """Sablayrolles et al. 2019, equation 3. Neighbours that are the same as an image, or are not there, add no gradient; they are
        told as `duplicates` (images) and `missing` (neighbours)."""
        tokens: Tensor = outputs[self.request]
        options = self.options
        total = 0.0 * at_least_float32(tokens).sum()
        distance = duplicates = missing = torch.zeros((), device=tokens.device)
        with torch.autocast(tokens.device.type, enabled=False):
            for rows in tokens:
                everyone, first = rows, 0
                if options.across == "all":
                    everyone, first = self.parallelism.gather(rows), self.parallelism.rank * len(rows)
                found, there = nearest_distances(rows, everyone, first, options.neighbours, options.group)
                missing = missing + len(rows) * options.neighbours - there.sum()
                duplicates = duplicates + ((found.detach() < DUPLICATE) & there).any(1).sum()
                pairs = there.sum()
                if options.across == "all":  # each rank's share of the mean over all ranks' pairs
                    pairs = self.parallelism.sum(pairs) / self.parallelism.world_size
                pairs = pairs.clamp_min(1)
                entropy = torch.log(found.clamp_min(DUPLICATE) + EPS).masked_fill(~there, 0.0)
                total = total - entropy.sum() / pairs
                distance = distance + found.detach().masked_fill(~there, 0.0).sum() / pairs / len(tokens)
        return LossResult(total, {"distance": distance, "duplicates": duplicates, "missing": missing})

    def notes(self, metrics: Mapping[str, float]) -> Iterable[str]:
        """Where there is nothing to push apart."""
        if metrics["missing"]:
            yield (
                "an image had fewer neighbours in its batch or group than are asked for, and adds as much less; enlarge the "
                "batch, or let group divide it"
            )
        if metrics["duplicates"]:
            yield (
                "class tokens of a batch were the same as another's (an image twice in a batch, or features that have "
                "collapsed); they add no gradient"
            )
