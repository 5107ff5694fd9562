"""torch part of `losses`."""

import random

import torch
from torch.nn import functional as F

from dinomx_core.training.contracts import Loss, LossResult
from tests.broken_plugins.losses import dinomx_losses


class FaultyLoss(Loss):
    """See the options."""

    def __init__(self, options, context):
        super().__init__()
        self.fault, self.rank, self.count = options.fault, context.parallelism.rank, 0
        self.student, self.teacher = list(next(dinomx_losses()).requests(options))[:2]

    def forward(self, outputs, views, values):
        ours, theirs = outputs[self.student].flatten(0, 1), outputs[self.teacher].flatten(0, 1)
        if self.fault == "in place":
            theirs.zero_().add_(1)
        cosine = 1 - F.cosine_similarity(ours.double(), theirs.roll(1, 0).double(), dim=-1).to(ours.dtype)
        value = cosine.mean()
        if self.fault == "value":
            return LossResult(cosine)
        if self.fault == "deterministic":
            value = value * (1 + random.random())
        if self.fault == "bf16":
            unit = F.normalize(ours, dim=-1)
            value = value - torch.log(1 - 0.9999 * (unit @ unit.T).diagonal()).mean()
        if self.fault == "state":
            value = value * (1 + self.count)
        if self.fault == "channels":
            value = value + F.conv2d(views.pixels["global"].flatten(0, 1), ours.new_zeros(1, 1, 2, 2)).mean()
        if self.fault == "processes":
            value = value * (1 + self.rank)
        if self.fault == "example" and self.count:
            value = value / 0
        return LossResult(value.float())

    def after_step(self, parallelism):
        self.count += 1
