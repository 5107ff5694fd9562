"""Distillation from features."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dinomx_core.training.contracts import Loss, LossContext, LossResult, Outputs, Scheduled
from dinomx_core.training.flow import Views, at_least_float32
from dinomx_distill import plugin


def distance(student: Tensor, teacher: Tensor, how: str) -> Tensor:
    """Mean distance of rows (…, D): "cosine", or "smooth-l1" and "mse" from the teacher's rows with mean 0 and variance 1."""
    if how == "cosine":
        return 1 - F.cosine_similarity(student, teacher, dim=-1).mean()
    teacher = F.layer_norm(teacher, teacher.shape[-1:])
    return F.smooth_l1_loss(student, teacher) if how == "smooth-l1" else F.mse_loss(student, teacher)


def make_projector(kind: str, width: int, wanted: int) -> nn.Module:
    """(…, width) -> (…, wanted)."""
    if kind == "linear":
        return nn.Linear(width, wanted)
    return nn.Sequential(nn.Linear(width, wanted), nn.GELU(), nn.Linear(wanted, wanted))


class FeatureLoss(Loss):
    """Class and patch tokens through a projection each, against another model's."""

    def __init__(self, options: "plugin.DistillFeatures", context: LossContext):
        super().__init__()
        self.options = options
        self.student, self.teacher = plugin.features_requests(options)
        wanted = context.networks[self.teacher.network].width
        self.projectors = nn.ModuleDict(
            {
                name: make_projector(options.projector, context.width, wanted)
                for name, weight in (("cls", options.cls), ("patches", options.patches))
                if weight
            }
        )

    def forward(self, outputs: Outputs, views: Views, values: Scheduled) -> LossResult:
        """See `distance`; told apart as `cls` and `patches`."""
        ours, theirs = outputs[self.student], outputs[self.teacher]
        rows = {
            "cls": (ours.summary, lambda: theirs.summary, self.options.cls),
            "patches": (ours.patches, lambda: theirs.patches_on(ours.grid), self.options.patches),
        }
        total: Tensor = torch.zeros((), device=ours.patches.device)
        metrics: dict[str, Tensor | float] = {}
        for name, projector in self.projectors.items():
            mine, wanted, weight = rows[name]
            projected = projector(mine)
            with torch.autocast(projected.device.type, enabled=False):
                found = distance(at_least_float32(projected), at_least_float32(wanted()), self.options.distance)
            total = total + weight * found
            metrics[name] = found.detach()
        return LossResult(total, metrics)
