"""Freezing: gradients off, for good or up to a step."""

from collections.abc import Mapping

from torch import nn

from dinomx_core import PluginError
from dinomx_core.training.backbone import Backbone
from dinomx_core.training.contracts import Strategy
from dinomx_core.training.network import Network
from dinomx_freeze import plugin


class FreezeStrategy(Strategy):
    """Parameters without gradients have no optimiser state, and the teacher has none of its own where they stay so for good."""

    def __init__(self, options: "plugin.Freeze"):
        self.options = options
        self.held: list[nn.Parameter] = []  # that will train, and were made to wait

    def adapt(self, backbone: Backbone) -> None:
        """Turn gradients off for good; what trains later is held back step by step."""
        if not self.options.until.amount:
            for parameter in self.named(backbone):
                parameter.requires_grad_(False)

    def before_step(self, student: Network, step: int, lengths: Mapping[str, int]) -> None:
        """Hold back up to the step, and let go from it on."""
        if not self.options.until.amount:
            return
        if step < lengths["until"] and not self.held:
            self.held = [parameter for parameter in self.named(student.backbone) if parameter.requires_grad]
            for parameter in self.held:
                parameter.requires_grad_(False)
            student.train()
        elif step >= lengths["until"] and self.held:
            for parameter in self.held:
                parameter.requires_grad_(True)
            self.held = []
            student.train()

    def named(self, backbone: Backbone) -> list[nn.Parameter]:
        """The parameters that the options name."""
        if backbone.layout is None:
            raise PluginError(f"freeze: {type(backbone).__name__} does not tell where its parts are (Backbone.layout)")
        parameters = dict(backbone.named_parameters())
        names = plugin.frozen_names(self.options, backbone.layout, len(backbone.blocks), parameters)
        return [parameter for name, parameter in parameters.items() if name in names]
