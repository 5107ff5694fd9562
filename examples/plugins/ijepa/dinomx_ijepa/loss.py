"""The I-JEPA objective: a predictor on the student's context, and the teacher's patches as its target."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dinomx_core.training.contracts import Loss, LossContext, LossResult, Outputs, Scheduled
from dinomx_core.training.flow import Views, at_least_float32
from dinomx_ijepa import plugin

SLOWEST = 10000.0  # of the sines' periods, over 2 pi


def sines(rows: int, columns: int, width: int) -> Tensor:
    """Positions (rows * columns, width): sines and cosines of the row, then those of the column (Vaswani et al. 2017)."""
    frequencies = SLOWEST ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = [torch.arange(count, dtype=torch.float64)[:, None] * frequencies for count in (rows, columns)]
    down, across = (torch.cat([axis.sin(), axis.cos()], 1) for axis in angles)
    grid = torch.cat([down[:, None].expand(-1, columns, -1), across[None].expand(rows, -1, -1)], 2)
    return grid.flatten(0, 1)


class Predictor(nn.Module):
    """A narrow transformer: context tokens and one mask token a target, each with its position, in; the targets' features out."""

    def __init__(self, options: "plugin.Ijepa", width: int):
        super().__init__()
        inside = options.width
        self.enter, self.leave = nn.Linear(width, inside), nn.Linear(inside, width)
        self.mask_token = nn.Parameter(torch.empty(inside).normal_(std=0.02))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                inside, options.heads, 4 * inside, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(options.depth)
        )
        self.norm = nn.LayerNorm(inside)

    def forward(self, context: Tensor, known: Tensor, wanted: Tensor) -> Tensor:
        """context (M, kept, width); positions of it (M, kept, inside) and of the targets (M, masked, inside) -> (M, masked, width)."""
        x = torch.cat([self.enter(context) + known, self.mask_token + wanted], 1)
        for block in self.blocks:
            x = block(x)
        return self.leave(self.norm(x[:, context.shape[1] :]))


class IjepaLoss(Loss):
    """Smooth L1 distance of what the predictor makes of the context from the teacher's patches, each brought to mean 0 and variance 1
    over its features (Assran et al. 2023, section 3)."""

    def __init__(self, options: "plugin.Ijepa", context: LossContext):
        super().__init__()
        self.options = options
        self.student, self.teacher = plugin.requests(options)
        self.predictor = Predictor(options, context.width)

    def forward(self, outputs: Outputs, views: Views, values: Scheduled) -> LossResult:
        """Told beside it: `masked`, the share of the patches that are targets, and `target_std`, the mean standard deviation of a
        feature over all targets of the batch, 0 where the teacher gives every patch the same."""
        ours, theirs = outputs[self.student].patches, outputs[self.teacher]
        mask = views.masks[self.options.view].flatten(0, 1)
        _, rows, columns = theirs.grid
        places = sines(rows, columns, self.options.width).to(ours).expand(len(mask), -1, -1)

        def split(tensor: Tensor, which: Tensor) -> Tensor:  # as many of each image
            return tensor[which].view(len(mask), -1, tensor.shape[-1])

        predicted = self.predictor(ours, split(places, ~mask), split(places, mask))
        with torch.autocast(predicted.device.type, enabled=False):
            features = at_least_float32(theirs.patches)
            wanted = split(F.layer_norm(features, features.shape[-1:]), mask)
            value = F.smooth_l1_loss(at_least_float32(predicted), wanted)
        metrics = {"masked": mask.float().mean(), "target_std": wanted.flatten(0, 1).std(0).mean()}
        return LossResult(value, metrics)
