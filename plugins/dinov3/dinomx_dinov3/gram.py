"""The Gram anchoring loss."""

import torch
from torch import Tensor
from torch.nn import functional as F

from dinomx_core.training.contracts import Loss, LossContext, LossResult, Outputs, Scheduled
from dinomx_core.training.flow import Views, at_least_float32
from dinomx_dinov3 import plugin


def gram_distance(student: Tensor, teacher: Tensor, normalised: bool, negatives: str) -> Tensor:
    """Mean squared difference of the similarities between patches, of student and teacher (…, N, D) (Siméoni et al. 2025,
    equation 3). `negatives`: "keep", "remove" (in both) or "remove-teacher"."""
    if normalised:
        student, teacher = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
    theirs, ours = teacher @ teacher.transpose(-2, -1), student @ student.transpose(-2, -1)
    if negatives != "keep":
        theirs = theirs.clamp_min(0)
    if negatives == "remove":
        ours = ours.clamp_min(0)
    return F.mse_loss(ours, theirs)


class GramLoss(Loss):
    """Distance of the student's patch similarities from those of the Gram teacher."""

    def __init__(self, options: "plugin.Gram", context: LossContext):
        super().__init__()
        self.options = options
        self.student, self.teacher = plugin.gram_requests(options)

    def forward(self, outputs: Outputs, views: Views, values: Scheduled) -> LossResult:
        """See `gram_distance`."""
        options, student = self.options, outputs[self.student]
        ours, theirs = student.patches, outputs[self.teacher].patches_on(student.grid, options.antialias)
        if options.tokens != "all":
            chosen = views.masks[options.student_view].flatten(0, 1)
            chosen = chosen if options.tokens == "masked" else ~chosen
            ours, theirs = ours[chosen], theirs[chosen]
        elif options.level == "batch":
            ours, theirs = ours.flatten(0, 1), theirs.flatten(0, 1)
        if not ours.numel():  # a batch without masked patches
            return LossResult(0.0 * at_least_float32(student.patches).sum())
        with torch.autocast(ours.device.type, enabled=False):
            return LossResult(
                gram_distance(at_least_float32(ours), at_least_float32(theirs), options.normalised, options.negatives)
            )
