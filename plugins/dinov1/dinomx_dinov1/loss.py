"""The DINO loss."""

import torch
from torch import Tensor

from dinomx_core.training.contracts import Loss, LossContext, LossResult, Outputs, Scheduled
from dinomx_core.training.flow import Views, at_least_float32
from dinomx_core.training.health import assignment_metrics
from dinomx_dinov1 import plugin


def pair_entropy(teacher: Tensor, student: Tensor, temperature: float, same_crops: bool) -> Tensor:
    """Mean over images and pairs of a teacher's and a student's crop of -sum(p log q) (Caron et al. 2021, equation 2).

    teacher (T, B, K) probabilities; student (S, B, K) logits. With `same_crops` the student's crops are the teacher's, and a
    crop is not paired with itself; 0 where that leaves no pair.
    """
    log_q = torch.log_softmax(at_least_float32(student) / temperature, dim=-1)
    # The sum over pairs is (sum of p) . (sum of log q): T + S products in place of T * S.
    total = (teacher.sum(0) * log_q.sum(0)).sum()
    pairs = len(teacher) * len(student)
    if same_crops:
        total = total - (teacher * log_q).sum()
        pairs -= len(teacher)
    return -total / max(1, pairs * student.shape[1])


class DinoLoss(Loss):
    """Cross-entropy of student crops against the teacher's view of other crops."""

    def __init__(self, options: "plugin.Dino", context: LossContext):
        super().__init__()
        self.temperature = options.student_temperature
        self.globals, *self.locals, self.teacher = plugin.dino_requests(options)
        self.target = context.build_target(options.target, context.heads[options.head].outputs)

    def forward(self, outputs: Outputs, views: Views, values: Scheduled) -> LossResult:
        """See `pair_entropy` (told as `global` and `local`) and `assignment_metrics`.

        The two are weighted by their numbers of pairs, the local one by `local_weight` besides.
        """
        logits: Tensor = outputs[self.teacher]
        probabilities = self.target(logits.flatten(0, 1), values["teacher_temperature"]).view(logits.shape)
        found = {"global": pair_entropy(probabilities, outputs[self.globals], self.temperature, same_crops=True)}
        both, local = len(logits), sum(len(outputs[request]) for request in self.locals)
        share = (both - 1) / (both - 1 + local)  # of the pairs
        value = plain = share * found["global"]
        for request in self.locals:
            found["local"] = pair_entropy(probabilities, outputs[request], self.temperature, same_crops=False)
            value = value + values["local_weight"] * (1 - share) * found["local"]
            plain = plain + (1 - share) * found["local"]
        metrics = assignment_metrics(probabilities.flatten(0, 1), plain)
        return LossResult(value, {**metrics, **{name: entropy.detach() for name, entropy in found.items()}})
