"""The KoLeo regulariser."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from dinomx_core.training.contracts import Loss, LossContext, LossResult, Outputs, Scheduled
from dinomx_core.training.flow import Views
from dinomx_dinov2 import plugin

EPS = 1e-8
DUPLICATE = 1e-6  # distance of unit vectors below which float32 tells nothing of its direction


def nearest_distances(rows: Tensor, everyone: Tensor, first: int, neighbours: int, group: int) -> Tensor:
    """Distances (B, k) of L2-normalised rows (B, D) to the nearest of everyone (M, D), among whom row i is number first + i.

    k is `neighbours`, or fewer where there are fewer; with `group` only rows of the same group in succession are neighbours.
    """
    rows, everyone = F.normalize(rows.float(), eps=EPS), F.normalize(everyone.float(), eps=EPS)
    own = torch.arange(first, first + len(rows), device=rows.device)
    other = torch.arange(len(everyone), device=rows.device)
    with torch.no_grad():
        apart = own[:, None] == other[None]
        if group:
            apart |= own[:, None] // group != other[None] // group
        cosines = (rows @ everyone.T).masked_fill(apart, -torch.inf)
        count = min(neighbours, int((~apart).sum(1).min()))
        nearest = cosines.topk(count, dim=1).indices
    return F.pairwise_distance(rows[:, None].expand(-1, count, -1), everyone[nearest], eps=EPS)


class KoleoLoss(Loss):
    """-log of the distance to the nearest neighbours, its mean over a crop's images, summed over the crops."""

    def __init__(self, options: "plugin.Koleo", context: LossContext):
        super().__init__()
        self.options, self.parallelism = options, context.parallelism
        (self.request,) = plugin.koleo_requests(options)

    def forward(self, outputs: Outputs, views: Views, values: Scheduled) -> LossResult:
        """Sablayrolles et al. 2019, equation 3. Rows that are the same as another, or have no other, add no gradient; they are
        told as `duplicates` and `alone`."""
        tokens: Tensor = outputs[self.request]
        options = self.options
        total = tokens.new_zeros((), dtype=torch.float32)
        distance = duplicates = torch.zeros((), device=tokens.device)
        alone = 0
        with torch.autocast(tokens.device.type, enabled=False):
            for rows in tokens:
                everyone, first = rows, 0
                if options.across == "all":
                    everyone, first = self.parallelism.gather(rows), self.parallelism.rank * len(rows)
                found = nearest_distances(rows, everyone, first, options.neighbours, options.group)
                if not found.shape[1]:
                    alone += len(rows)
                    total = total + 0.0 * rows.float().sum()
                    continue
                total = total - torch.log(found.clamp_min(DUPLICATE) + EPS).mean()
                distance = distance + found.detach().mean() / len(tokens)
                duplicates = duplicates + (found.detach() < DUPLICATE).any(1).sum()
        return LossResult(total, {"distance": distance, "duplicates": duplicates, "alone": float(alone)})

    def notes(self, metrics: Mapping[str, float]) -> Iterable[str]:
        """Where there is nothing to push apart."""
        if metrics["alone"]:
            yield "an image had no other in its batch to be kept apart from and adds nothing; enlarge the batch or the group"
        if metrics["duplicates"]:
            yield (
                "class tokens of a batch were the same as another's (an image twice in a batch, or features that have "
                "collapsed); they add no gradient"
            )
