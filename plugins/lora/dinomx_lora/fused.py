"""A linear layer and its adapter in one function, which keeps as little as it can for the backward pass."""

from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from torch.nn import functional as F


class NamedNorm(nn.LayerNorm):
    """A layer norm whose result remembers what it was made from, so that others need not keep it."""

    def forward(self, x: Tensor) -> Tensor:
        """As of `nn.LayerNorm`."""
        result = super().forward(x)
        if torch.is_grad_enabled():
            result.made_from = (self, x.detach())
        return result


class _Adapted(torch.autograd.Function):
    """x W^T + b + s (x A^T) B^T, with gradients for x, A and B. The adapter's product goes into the layer's own, so that nothing else of
    its size is made. Keeps x A^T, and x, or what goes into the norm that x comes from, which the norm keeps too."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scaling: float,
        norm: nn.Module | None, entered: Tensor | None,
    ) -> Tensor:  # fmt: skip
        rows = x.flatten(0, -2)
        inner = rows @ down.t()
        result = F.linear(rows, weight, bias).addmm_(inner, up.t(), alpha=scaling)
        ctx.save_for_backward(x if entered is None else entered, weight, down, up, inner)
        ctx.scaling, ctx.norm = scaling, norm
        return result.unflatten(0, x.shape[:-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, down, up, inner = ctx.saved_tensors
        if ctx.norm is not None:
            x = ctx.norm.forward(x).to(down.dtype)
        of_result = gradients[0].flatten(0, -2)
        of_inner = of_result @ up
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = (of_result @ weight).addmm_(of_inner, down, alpha=ctx.scaling).view(x.shape)
        of_down = (of_inner.t() @ x.flatten(0, -2)).mul_(ctx.scaling)
        of_up = (of_result.t() @ inner).mul_(ctx.scaling)
        return of_x, None, None, of_down, of_up, None, None, None


class FusedLinear(Linear):
    """peft's layer with one adapter that is neither dropped out nor of another kind, computed with less memory and traffic."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(…, in) -> (…, out)."""
        name = self.active_adapters[0]
        base = self.get_base_layer()
        parts = [x, base.weight, base.bias, self.lora_A[name].weight, self.lora_B[name].weight]
        kind = x.device.type
        wanted = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        cast = [part if part is None else part.to(wanted) for part in parts]
        whole = x if x._base is None or x._base.shape != x.shape else x._base  # x may be a slice of all its tokens
        norm, entered = getattr(whole, "made_from", (None, None))
        with torch.autocast(kind, enabled=False):
            return _Adapted.apply(*cast, self.scaling[name], norm, entered)
