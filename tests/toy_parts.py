"""torch parts of `toy_objectives`."""

import torch
from torch import nn
from torch.nn import functional as F

from dinomx_core.builtin.crops import MultiCrop
from dinomx_core.builtin.multicrop import MultiCropAugmentation
from dinomx_core.training.contracts import Loss, LossResult, Strategy, Teacher
from tests import toy_objectives


class Decoder(nn.Linear):
    """Tokens of the kept patches -> (B, kept, outputs)."""

    def __init__(self, options, width):
        super().__init__(width, options.outputs)

    def forward(self, tokens):
        return super().forward(tokens.patches)


class Predictor(nn.Linear):
    """Rows."""

    def __init__(self, options, width):
        super().__init__(width, options.outputs)


class PixelLoss(Loss):
    """Mean of the kept patches' predictions against mean pixels of the whole crop."""

    def __init__(self, options, context):
        super().__init__()
        (self.request,) = toy_objectives.dinomx_losses().__next__().requests(options)

    def forward(self, outputs, views, values):
        pixels = views.pixels["global"].flatten(0, 1)
        target = F.adaptive_avg_pool2d(pixels, 4).flatten(1)
        predicted = outputs[self.request]
        assert predicted.shape[1] == 8  # half of 16 patches were dropped
        return LossResult(F.mse_loss(predicted.mean(1), target))


class PredictLoss(Loss):
    """Student patches through the predictor against the teacher's last blocks."""

    def __init__(self, options, context):
        super().__init__()
        _, loss = toy_objectives.dinomx_losses()
        self.student, self.teacher = loss.requests(options)

    def forward(self, outputs, views, values):
        blocks = outputs[self.teacher]
        target = torch.stack([tokens.patches for tokens in blocks]).mean(0)
        predicted = outputs[self.student].flatten(0, 1)
        return LossResult(F.smooth_l1_loss(predicted, target), {"blocks": float(len(blocks))})


class MaskedCrops(MultiCropAugmentation):
    """Multi-crop with a mask of half the patches."""

    def __init__(self, options, channels):
        super().__init__(MultiCrop(globals=options.globals, mean=options.mean, std=options.std), channels)

    def __call__(self, item, stream):
        views = super().__call__(item, stream)
        for number, crop in enumerate(views["global"]):
            chosen = torch.randperm(16, generator=stream.generator(f"mask {number}"))[:8]
            crop.mask = torch.zeros(16, dtype=torch.bool).index_fill_(0, chosen, True)
        return views


class SameTeacher(Strategy):
    """No second network."""

    def __init__(self, options):
        pass

    def teacher(self, student, make):
        return Teacher(student, [])
