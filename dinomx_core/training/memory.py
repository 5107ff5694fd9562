"""What saves memory at the price of other things: what is computed again in the backward pass, and weights kept in bf16."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dinomx_core.errors import ConfigError, Problem
from dinomx_core.training.backbone import Backbone

Recompute = Literal["none", "mlp", "blocks"]


class _Again:
    """Stands before a module's own class: in training, what its forward keeps for the backward pass is computed again there."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call: Callable[..., Any] = super().__call__  # type: ignore[misc]
        if self.training and torch.is_grad_enabled():  # type: ignore[attr-defined]
            return torch.utils.checkpoint.checkpoint(call, *args, use_reentrant=False, **kwargs)
        return call(*args, **kwargs)


_classes: dict[type, type] = {}


def recompute(backbone: Backbone, what: Recompute, every: int) -> None:
    """Let every n-th block, or its MLP alone, be computed again in the backward pass. Raises ConfigError where blocks have no MLP
    that can be told apart."""
    for block in backbone.blocks[every - 1 :: every] if what != "none" else ():
        module = block if what == "blocks" else block.get_submodule(mlp_of(backbone))
        kind = type(module)
        module.__class__ = _classes.setdefault(kind, type(kind.__name__, (_Again, kind), {}))


def mlp_of(backbone: Backbone) -> str:
    """The name, within a block, of the module that holds its MLP."""
    name = backbone.layout.mlp if backbone.layout else ""
    if not name:
        message = f'{type(backbone).__name__} has no MLP of its own in a block; set run.recompute = "blocks"'
        raise ConfigError([Problem(message, "run.recompute")])
    return name


class NarrowLinear(nn.Linear):
    """A linear layer whose weights are bf16; outside autocast it computes in the type of its input."""

    def forward(self, x: Tensor) -> Tensor:
        """As of `nn.Linear`."""
        if torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


def narrow(backbone: Backbone) -> None:
    """Keep the weights of linear layers that do not train in bf16. Under bf16 autocast they compute the same as before."""
    for layer in backbone.modules():
        if type(layer) is nn.Linear and not any(p.requires_grad for p in layer.parameters()):
            layer.__class__ = NarrowLinear
            layer.to(torch.bfloat16)


def widen(backbone: Backbone) -> Backbone:
    """All weights in float32 again, rounded as they are."""
    for layer in backbone.modules():
        if type(layer) is NarrowLinear:
            layer.__class__ = nn.Linear
            layer.float()
    return backbone
