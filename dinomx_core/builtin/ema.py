"""The momentum teacher of DINO: an exponential moving average of the student."""

from collections.abc import Callable

import torch

from dinomx_core.builtin.plugin import Ema
from dinomx_core.training.backbone import Backbone
from dinomx_core.training.build import twin
from dinomx_core.training.contracts import Scheduled, Strategy, Teacher
from dinomx_core.training.network import Network


class EmaTeacher(Strategy):
    """teacher <- momentum * teacher + (1 - momentum) * student, once a step (Caron et al. 2021, section 3.1)."""

    def __init__(self, options: Ema):
        self.options = options

    def teacher(self, student: Network, make: Callable[[Backbone], Network]) -> Teacher:
        """A network of the student's shape that starts from its weights. Parameters that never train are the student's own; every
        other one follows."""
        still = [parameter for parameter in student.backbone.parameters() if not parameter.requires_grad]
        network = make(twin(student.backbone, still))
        own, theirs = dict(network.named_parameters()), dict(student.named_parameters())
        if alone := [name for name in own if name not in theirs]:
            raise RuntimeError(
                f"the student has no {alone[0]} that the teacher could follow; its strategy must supply the teacher"
            )
        apart = [name for name in own if own[name] is not theirs[name]]
        with torch.no_grad():
            for name in apart:
                own[name].copy_(theirs[name])
        return Teacher(network, apart)

    def after_step(self, teacher: Teacher, values: Scheduled) -> None:
        """Move every pair together by 1 - momentum."""
        students, teachers = [s for s, _ in teacher.pairs], [t for _, t in teacher.pairs]
        if students:
            torch._foreach_lerp_(teachers, students, 1.0 - values["momentum"])
