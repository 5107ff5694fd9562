"""torch parts of `networks`."""

from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from dinomx_core.builtin.families import Hf
from dinomx_core.builtin.hf import build_hf
from dinomx_core.training.contracts import Target
from dinomx_core.training.huggingface import HuggingFaceBackbone
from tests.broken_plugins.networks import TINY


class FaultyBackbone(HuggingFaceBackbone):
    """The toy's transformer."""

    fault = ""

    def embed(self, pixels, mask=None):
        hidden = super().embed(pixels, None if self.fault == "masks" else mask)
        if self.fault == "deterministic":
            hidden.x = hidden.x + 0.01 * torch.randn_like(hidden.x)
        return hidden

    def finish(self, hidden):
        tokens = super().finish(hidden)
        if self.fault == "tokens":
            return replace(tokens, patches=tokens.patches[:, 1:])
        if self.fault == "bf16":
            unit = F.normalize(tokens.cls, dim=-1)
            return replace(tokens, cls=tokens.cls / (1 - 0.9999 * (unit @ unit.T).diagonal()[:, None]))
        return tokens

    def layer_of(self, name):
        return 0 if self.fault == "blocks" else super().layer_of(name)

    def _end(self, hidden, done, layers, short):
        return super()._end(hidden, 0 if self.fault == "passes" else done, layers, short)


def build(options, shape, image_size):
    backbone = build_hf(Hf(**TINY), shape, image_size)
    backbone.__class__, backbone.fault = FaultyBackbone, options.fault
    if options.fault == "gradients":
        backbone.unused = nn.Parameter(torch.zeros(3))
    if options.fault == "export":
        backbone.options = Hf(**{**TINY, "depth": 1})
    return backbone


class FaultyHead(nn.Module):
    """One linear layer."""

    def __init__(self, options, width):
        super().__init__()
        self.fault, self.layer, self.scale = options.fault, nn.Linear(width, 8), torch.rand(width)
        if self.fault == "gradients":
            self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(x * self.scale if self.fault == "state" else x)


class FaultyTarget(Target):
    """Softmax of logits less their running mean."""

    def __init__(self, options, outputs, parallelism):
        super().__init__()
        self.fault, self.seen = options.fault, None
        if self.fault == "state":
            self.center = torch.zeros(outputs)
        else:
            self.register_buffer("center", torch.zeros(outputs))

    def forward(self, logits, temperature):
        logits = logits.float()
        self.seen = logits.mean(0) if self.training else self.seen
        if self.fault == "probabilities":
            return torch.sigmoid(logits)
        return torch.softmax((logits - self.center) / temperature, -1)

    def after_step(self, parallelism):
        if self.training:
            self.center = 0.5 * self.center + 0.5 * self.seen
