"""Checks of losses."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dinomx_core.builtin.single import SingleProcess
from dinomx_core.declare.facts import Request
from dinomx_core.planning.plan import within
from dinomx_core.testing.findings import check
from dinomx_core.testing.runs import COARSE, built, scrambled, steps, stream_of, tensors_in
from dinomx_core.testing.subject import Part
from dinomx_core.testing.trains import differences_of_a_cut
from dinomx_core.training.build import Parts, make_losses
from dinomx_core.training.contracts import Loss, LossResult
from dinomx_core.training.flow import Tokens, Views


@dataclass
class Bench:
    """A loss with the forward results that it asks for, of the first step of a short run."""

    parts: Parts
    loss: Loss
    values: dict[str, float]
    views: Views
    outputs: dict[Request, Any]

    @property
    def student(self) -> list[Request]:
        """What it asks of the student."""
        return [request for request in self.outputs if request.network == "student"]

    def __call__(self, outputs: dict[Request, Any]) -> LossResult:
        """Its result, with torch's generator where a step would have it."""
        torch.manual_seed(0)
        return self.loss(outputs, self.views, self.values)


def each_tensor(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A forward result with each of its tensors changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Tokens):
        fields = {name: getattr(value, name) for name in ("cls", "registers", "patches", "by_channel")}
        return replace(value, **{name: change(t) for name, t in fields.items() if t is not None})
    return tuple(each_tensor(one, change) for one in value)


def moved(tensor: Tensor) -> Tensor:
    """A leaf a little beside a tensor: where student and teacher begin as one, a loss may be at rest."""
    noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(7))
    spread = tensor.detach().std(correction=0).clamp_min(1e-3) if tensor.numel() else 0.0
    return (tensor.detach() + 0.3 * spread * noise).requires_grad_()


def bench(part: Part) -> Bench:
    """The loss of a component, on what it asks for; made once for all checks."""
    return part.subject.once((str(part), "bench"), lambda: _bench(part))


def _bench(part: Part) -> Bench:
    parts, label = built(part), part.label
    views, _ = next(stream_of(parts))
    outputs: dict[Request, Any] = {}
    requests = list(part.component.requests(parts.plan.spec.losses[label].options))
    for name, network in parts.objective.networks.items():
        if wanted := [request for request in requests if request.network == name]:
            with torch.no_grad():
                outputs.update(network(wanted, views))
    outputs = {r: each_tensor(v, moved) if r.network == "student" else v for r, v in outputs.items()}
    return Bench(parts, parts.losses[label], within(parts.plan.values_at(0), f"loss.{label}."), views, outputs)


@check("loss", "value", "return `LossResult(value, metrics)`: a mean over rows in float32, metrics detached")
def value(part: Part) -> Iterator[str]:
    """It gives a scalar that is finite, in float32, and metrics that are single finite numbers."""
    made = bench(part)
    result = made(made.outputs)
    if not isinstance(result, LossResult):
        yield f"it returns {type(result).__name__}, expected LossResult"
        return
    if result.value.ndim or result.value.dtype != torch.float32:
        yield f"the value is {tuple(result.value.shape)} {result.value.dtype}, expected a scalar of torch.float32"
    elif not bool(torch.isfinite(result.value)):
        yield f"the value is {float(result.value)}"
    for name, metric in result.metrics.items():
        single = torch.as_tensor(metric)
        if single.numel() != 1 or not math.isfinite(float(single)):
            yield f'the metric "{name}" is {metric}, expected one finite number'
        if single.requires_grad:
            yield f'the metric "{name}" keeps the graph of the step alive; detach it'


@check(
    "loss",
    "gradients",
    "ask only for what is learnt from, and change nothing that is handed over: other losses see it, too",
)
def gradients(part: Part) -> Iterator[str]:
    """A gradient reaches every result that it asks of the student and its own parameters; the teacher's results stay as they were."""
    made = bench(part)
    leaves = {
        r: each_tensor(v, lambda t: t.detach().clone().requires_grad_())
        for r, v in made.outputs.items()
        if r in made.student
    }
    before = {r: each_tensor(v, torch.clone) for r, v in made.outputs.items() if r not in made.student}
    pixels = {name: tensor.clone() for name, tensor in made.views.pixels.items()}
    made.loss.zero_grad()
    made({**made.outputs, **leaves}).value.backward()
    for request, leaf in leaves.items():
        found = [tensor.grad for tensor in tensors_in(leaf) if tensor.grad is not None]
        if not any(bool(grad.any()) for grad in found):
            yield f"no gradient reaches {words(request)}"
        if not all(bool(torch.isfinite(grad).all()) for grad in found):
            yield f"the gradient of {words(request)} is not finite"
    if not leaves:
        yield "it asks nothing of the student, so nothing is learnt"
    for name, parameter in made.loss.named_parameters():
        if parameter.requires_grad and parameter.grad is None:
            yield f"no gradient reaches its own parameter {name}"
    for request, kept in before.items():
        now = tensors_in(made.outputs[request])
        if any(tensor.requires_grad for tensor in now):
            yield f"it makes {words(request)} require gradients"
        if not all(torch.equal(a, b) for a, b in zip(tensors_in(kept), now)):
            yield f"it changes {words(request)} in place"
    if not all(torch.equal(kept, made.views.pixels[name]) for name, kept in pixels.items()):
        yield "it changes the pixels of a view in place"


def words(request: Request) -> str:
    """A request for a reader."""
    of = f"{request.select} of the {request.network}'s {request.view}"
    return f"the {of}" + (f" through the head {request.head}" if request.head else "")


@check(
    "loss",
    "deterministic",
    "draw from torch's generator, which is seeded in every step; change what is kept in after_step alone",
)
def deterministic(part: Part) -> Iterator[str]:
    """The same results give the same value again, and what it keeps changes in `after_step` alone."""
    made = bench(part)
    found = []
    for seed in (1, 2):
        with scrambled(seed):
            found.append(float(made(made.outputs).value.detach()))
    if found[0] != found[1]:
        yield f"the same results cost {found[0]:.8g}, and then {found[1]:.8g}"


@check("loss", "bf16", "bring results to float32 first (`at_least_float32`)")
def bf16(part: Part) -> Iterator[str]:
    """Results in bf16, under autocast, cost about the same as in float32, and have finite gradients."""
    made = bench(part)
    exact = float(made(made.outputs).value.detach())
    coarse = {r: each_tensor(v, lambda t: t.detach().bfloat16()) for r, v in made.outputs.items()}
    leaves = {r: each_tensor(coarse[r], lambda t: t.requires_grad_()) for r in made.student}
    with torch.autocast("cpu", torch.bfloat16):
        found = made({**coarse, **leaves}).value
    found.backward()
    if not abs(float(found.detach()) - exact) <= COARSE * (abs(exact) + 1):
        yield f"it costs {float(found.detach()):.4g} under bf16, {exact:.4g} in float32"
    if not all(
        bool(torch.isfinite(t.grad).all()) for v in leaves.values() for t in tensors_in(v) if t.grad is not None
    ):
        yield "under bf16 a gradient is not finite"


@check(
    "loss", "state", "register what is kept as buffers or parameters (`register_buffer`): checkpoints hold these alone"
)
def state(part: Part) -> Iterator[str]:
    """After two steps a fresh loss that takes over its state gives the same value."""
    made, parts = bench(part), built(part)
    steps(parts, 2)
    fresh = make_losses(parts.plan, SingleProcess(None, parts.device))[part.label]
    fresh.load_state_dict(copy.deepcopy(parts.losses[part.label].state_dict()))
    found = [float(replace(made, loss=loss)(made.outputs).value.detach()) for loss in (parts.losses[part.label], fresh)]
    if found[0] != found[1]:
        yield f"it costs {found[0]:.8g}, and {found[1]:.8g} once its state is taken over"


@check("loss", "resume", "register what is kept as buffers, and draw from torch's generator", slow=True)
def resume(part: Part) -> Iterator[str]:
    """A run with it that is cut off and gone on with is the same bit for bit as in one go."""
    yield from differences_of_a_cut(part.subject, part.config())
