"""Distillation from heads."""

from dinomx_core.training.contracts import Strategy
from dinomx_distill import plugin


class HeadsStrategy(Strategy):
    """All that it does is declared: the network that it brings takes the teacher's place."""

    def __init__(self, options: "plugin.DistillHeads"):
        self.options = options
