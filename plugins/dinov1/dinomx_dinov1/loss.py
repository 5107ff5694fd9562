"""The DINO loss."""

import torch
from torch import Tensor

from dinomx_core.training.contracts import Loss, LossContext, LossResult, Outputs, Scheduled
from dinomx_core.training.flow import Views
from dinomx_core.training.health import assignment_metrics
from dinomx_dinov1 import plugin


def cross_view_entropy(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Mean over images and pairs of different crops of -sum(p log q).

    teacher (T, B, K) probabilities; student (S, B, K) logits, whose first T crops are the teacher's; pairs of the same
    crop are left out (Caron et al. 2021, equation 2).
    """
    log_q = torch.log_softmax(student.float() / temperature, dim=-1)
    # The sum over pairs is (sum of p) . (sum of log q) less the same-crop terms: T + S products in place of T * S.
    every = (teacher.sum(0) * log_q.sum(0)).sum()
    same = (teacher * log_q[: len(teacher)]).sum()
    pairs = len(teacher) * len(student) - len(teacher)
    return (same - every) / (pairs * student.shape[1])


class DinoLoss(Loss):
    """Cross-entropy of student crops against the teacher's view of other crops."""

    def __init__(self, options: "plugin.Dino", context: LossContext):
        super().__init__()
        self.temperature = options.student_temperature
        *self.student, self.teacher = plugin.dino_requests(options)
        self.target = context.build_target(options.target, context.heads[options.head].outputs)

    def forward(self, outputs: Outputs, views: Views, values: Scheduled) -> LossResult:
        """See `cross_view_entropy` and `assignment_metrics`."""
        logits: Tensor = outputs[self.teacher]
        probabilities = self.target(logits.flatten(0, 1), values["teacher_temperature"]).view(logits.shape)
        student = torch.cat([outputs[request] for request in self.student])
        value = cross_view_entropy(probabilities, student, self.temperature)
        return LossResult(value, assignment_metrics(probabilities.flatten(0, 1), value))
