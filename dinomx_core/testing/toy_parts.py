"""torch parts of `toy`."""

from typing import Any

import torch
from torch.nn import functional as F

from dinomx_core.testing import toy
from dinomx_core.training.contracts import Dataset, Loss, LossContext, LossResult, Outputs, Scheduled
from dinomx_core.training.flow import Item, Tokens, Views, at_least_float32


class PlanesData(Dataset):
    """Coarse noise, made smooth; no labels."""

    def __init__(self, options: Any):
        self.options = options

    def __len__(self) -> int:
        return self.options.count

    def __getitem__(self, index: int) -> Item:
        coarse = torch.rand(1, self.options.channels, 4, 4, generator=torch.Generator().manual_seed(index))
        return Item(F.interpolate(coarse, size=(20, 20), mode="bilinear")[0], id=str(index))


class NeighbourLoss(Loss):
    """1 - cosine between tokens of images that stand beside one another."""

    def __init__(self, options: "toy.Neighbours", context: LossContext):
        super().__init__()
        self.student, self.teacher = toy.neighbour_requests(options)

    def forward(self, outputs: Outputs, views: Views, values: Scheduled) -> LossResult:
        """Tokens of V * B images -> scalar."""
        ours, theirs = self.rows(outputs[self.student]), self.rows(outputs[self.teacher])
        width = min(ours.shape[-1], theirs.shape[-1])  # the teacher may be another network
        return LossResult(1 - F.cosine_similarity(ours[..., :width], theirs[..., :width].roll(1, 0), dim=-1).mean())

    def rows(self, tokens: Tokens) -> torch.Tensor:
        """Every token (images, T, D)."""
        first = [] if tokens.cls is None else [tokens.cls[:, None]]
        return at_least_float32(torch.cat([*first, tokens.registers, tokens.patches], 1))
