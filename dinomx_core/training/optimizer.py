"""AdamW over parameter groups, clipping by scope, the finite check, and the loss scale of fp16."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dinomx_core.errors import TrainingError
from dinomx_core.planning.spec import ClipScope, OptimizerOptions
from dinomx_core.training.contracts import Loss, Parallelism
from dinomx_core.training.network import Network

MOST_LEFT_OUT = 30  # fp16 steps in a row; the scale starts at 2^16 and halves each time


def last_layer_parameters(network: Network) -> list[nn.Parameter]:
    """Trainable parameters of the heads' `last_layer`, where a head has one."""
    layers = [getattr(head, "last_layer", None) for head in network.heads.values()]
    return [p for layer in layers if layer is not None for p in layer.parameters() if p.requires_grad]


def parameter_groups(student: Network, losses: Mapping[str, Loss], options: OptimizerOptions) -> list[dict]:
    """Trainable parameters by (lr factor, decayed or not, last layer or not, of the backbone or not).

    Biases and 1-D parameters are not decayed; class, position and mask tokens are (as in the three references). Layer-wise
    decay: embeddings decay^(L+1), block i decay^(L-i), everything after the blocks 1.
    """
    frozen_last = {id(p) for p in last_layer_parameters(student)}
    inside = {id(p) for p in student.backbone.parameters()}
    groups: dict[tuple[float, bool, bool, bool], list[nn.Parameter]] = {}
    for factor, parameter in _with_lr_factor(student, losses, options):
        decayed = parameter.ndim > 1
        key = (factor, decayed, id(parameter) in frozen_last, id(parameter) in inside)
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "lr_factor": factor, "decayed": decayed, "last_layer": last, "backbone": backbone}
        for (factor, decayed, last, backbone), parameters in groups.items()
    ]


def _with_lr_factor(
    student: Network, losses: Mapping[str, Loss], options: OptimizerOptions
) -> Iterator[tuple[float, nn.Parameter]]:
    backbone = student.backbone
    top = len(backbone.blocks) + 1
    for name, parameter in backbone.named_parameters():
        if parameter.requires_grad:
            factor = options.layer_decay ** (top - backbone.layer_of(name))
            if backbone.is_patch_embedding(name):
                factor *= options.patch_embed_lr
            yield factor, parameter
    for module in (student.heads, *losses.values()):
        for parameter in module.parameters():
            if parameter.requires_grad:
                yield 1.0, parameter


def clip_scopes(student: Network, losses: Mapping[str, Loss], scope: ClipScope) -> list[list[nn.Parameter]]:
    """Trainable parameters by what one clipping norm covers.

    In the reference codes query, key and value are one tensor; "tensor" keeps them together wherever a model has them apart.
    """
    parts = [list(module.named_parameters()) for module in (*student.parts().values(), *losses.values())]
    parts = [[(name, p) for name, p in part if p.requires_grad] for part in parts]
    if scope == "network":
        return [[p for _, p in part] for part in parts]
    if scope == "global":
        return [[p for part in parts for _, p in part]]
    backbone = student.backbone
    together = tuple(f".{m}" for role in ("query", "key", "value") for m in backbone.roles.get(role, ()))
    scopes: dict[Any, list[nn.Parameter]] = {}
    for number, part in enumerate(parts):
        for name, parameter in part:
            module, _, leaf = name.rpartition(".")
            inside = number == 0 and together and module.endswith(together)
            key = (backbone.layer_of(name), leaf) if inside else (number, name)
            scopes.setdefault(key, []).append(parameter)
    return list(scopes.values())


class Optimizer:
    """One optimiser step as the plan says it: unscale, clip, drop the last layer's gradients, check, update."""

    def __init__(
        self,
        student: Network,
        losses: Mapping[str, Loss],
        options: OptimizerOptions,
        freeze_last_layer: int,
        parallelism: Parallelism,
        fp16: bool,
    ):
        self.options, self.parallelism, self.freeze_last_layer = options, parallelism, freeze_last_layer
        groups = parameter_groups(student, losses, options)
        self.adamw = torch.optim.AdamW(groups, lr=0.0, betas=tuple(options.betas), eps=options.eps, fused=True)
        self.scaler = torch.amp.GradScaler(parallelism.device.type, enabled=fp16)
        self.last_layer = last_layer_parameters(student)
        self.left_out = 0
        self.scopes = clip_scopes(student, losses, options.clip_scope)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of one micro-batch."""
        self.scaler.scale(loss).backward()

    def step(self, step: int, lr: float, weight_decay: float, backbone_lr: float = 1.0) -> float:
        """Update the weights; `backbone_lr` is the backbone's factor. Returns the gradient norm before clipping; raises
        TrainingError when it is not finite."""
        frozen = step < self.freeze_last_layer
        for group in self.adamw.param_groups:
            still = frozen and group["last_layer"] and self.options.freeze_last_layer_by == "lr"
            group["lr"] = 0.0 if still else lr * group["lr_factor"] * (backbone_lr if group["backbone"] else 1.0)
            group["weight_decay"] = weight_decay if group["decayed"] else 0.0
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.adamw)
        norm = self._clip()
        if frozen and self.options.freeze_last_layer_by == "gradient":
            for parameter in self.last_layer:
                parameter.grad = None
        if self.scaler.is_enabled():
            self.scaler.step(self.adamw)  # leaves the step out when a gradient overflowed, and lowers the scale
            self.scaler.update()
            self.left_out = 0 if norm < float("inf") else self.left_out + 1
            if self.left_out > MOST_LEFT_OUT:
                raise TrainingError(
                    f"step {step}: gradients are not finite at any loss scale; lower optimizer.lr or train in bf16 or float32"
                )
        elif not norm < float("inf"):
            raise TrainingError(
                f"step {step}: the gradient is not finite ({norm}); lower optimizer.lr, lengthen its warm-up, or train in float32"
            )
        else:
            self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        return norm

    def _clip(self) -> float:
        scopes = ([p.grad for p in scope if p.grad is not None] for scope in self.scopes)
        groups = [scope for scope in scopes if scope]
        norms = torch.stack(self.parallelism.norms(groups))
        if self.options.clip > 0:
            factors = (self.options.clip / (norms + 1e-6)).clamp(max=1.0)
            for group, factor in zip(groups, factors.tolist()):
                if factor < 1.0:
                    torch._foreach_mul_(group, factor)
        return float(norms.norm())
