"""torch parts of `others`."""

import random
from contextlib import nullcontext

import torch
from torch import nn

from dinomx_core.builtin.ddp import DataParallel
from dinomx_core.training.contracts import Evaluator, Strategy


class FaultyStrategy(Strategy):
    """Freezes the last norm."""

    def __init__(self, options):
        self.fault, self.count = options.fault, 0

    def adapt(self, backbone):
        backbone.model.layernorm.requires_grad_(False)
        if self.fault == "export":
            backbone.model.layernorm.register_forward_hook(lambda module, given, out: 2 * out)

    def after_step(self, teacher, values):
        self.count += 1
        with torch.no_grad():
            if self.fault == "trains":
                teacher.network.backbone.model.layernorm.weight.add_(0.1)
            if self.fault == "resume":
                teacher.pairs[0][1].add_(0.1 * self.count)

    def merge(self, backbone):
        backbone.model.layernorm._forward_hooks.clear()


class ApartProcesses(DataParallel):
    """Every process trains alone."""

    def wrap(self, objective, beside):
        for network in beside:
            network.to(self.device)
        return objective.to(self.device)

    def micro_batch(self, objective, last):
        return nullcontext()


class FaultyEvaluator(Evaluator):
    """The mean of the weights."""

    def __init__(self, options):
        self.fault = options.fault

    def evaluate(self, encoder):
        backbone = encoder.backbone
        found = float(sum(p.mean() for p in backbone.parameters()))
        if self.fault == "figures":
            return {"mean": found + random.random(), "norm": float("nan")}
        if self.fault == "untouched":
            backbone.train()
            nn.init.zeros_(next(backbone.parameters()))
            random.random()
        return {"mean": found}


def command(words: list[str]) -> None:
    pass
