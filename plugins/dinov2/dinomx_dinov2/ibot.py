"""The iBOT loss."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from dinomx_core.training.contracts import Loss, LossContext, LossResult, Outputs, Scheduled
from dinomx_core.training.flow import Views, at_least_float32
from dinomx_core.training.health import assignment_metrics
from dinomx_dinov2 import plugin


def masked_entropy(teacher: Tensor, student: Tensor, masks: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """-sum(p log q) of masked patches: the mean over each image's, then over all images, unmasked ones counting as 0 (Zhou et
    al. 2022, equation 3, as DINOv2 weights it); and the plain mean over patches.

    teacher (M, K) probabilities, student (M, K) logits, of the patches that masks (B, N) bool name, image by image.
    """
    entropy = -(teacher * torch.log_softmax(at_least_float32(student) / temperature, dim=-1)).sum(-1)
    counts = masks.sum(1)
    weights = (1 / counts.clamp_min(1)).repeat_interleave(counts, output_size=len(entropy))
    return (entropy * weights).sum() / len(masks), entropy.detach().sum() / max(1, len(entropy))


class IbotLoss(Loss):
    """Cross-entropy of the student's masked patches against the teacher's view of them."""

    def __init__(self, options: "plugin.Ibot", context: LossContext):
        super().__init__()
        self.temperature, self.view = options.student_temperature, options.view
        self.student, self.teacher = plugin.ibot_requests(options)
        self.target = context.build_target(options.target, context.heads[options.head].outputs)

    def forward(self, outputs: Outputs, views: Views, values: Scheduled) -> LossResult:
        """See `masked_entropy` and `assignment_metrics`; `masked` is the share of all patches."""
        masks = views.masks[self.view].flatten(0, 1)
        probabilities = self.target(outputs[self.teacher], values["teacher_temperature"])
        value, plain = masked_entropy(probabilities, outputs[self.student], masks, self.temperature)
        metrics: dict[str, Tensor | float] = {"masked": len(probabilities) / masks.numel()}
        if len(probabilities):
            metrics.update(assignment_metrics(probabilities, plain))
        return LossResult(value, metrics)

    def notes(self, metrics: Mapping[str, float]) -> Iterable[str]:
        """Where there is nothing to learn from."""
        if not metrics["masked"]:
            yield "no patch of a step was masked, so it learnt nothing there; raise masking.share or masking.ratio"
