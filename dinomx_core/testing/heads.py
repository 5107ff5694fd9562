"""Checks of heads and targets."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dinomx_core.builtin.single import SingleProcess
from dinomx_core.testing.findings import check
from dinomx_core.testing.runs import COARSE
from dinomx_core.testing.subject import Part
from dinomx_core.training.construct import construct
from dinomx_core.training.flow import Tokens

WIDTH, ROWS, OUTPUTS = 24, 12, 16


def rows(seed: int = 3) -> Tensor:
    """Tokens (M, D) that no head has seen."""
    return torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(seed))


def through(head: nn.Module, some: Tensor) -> Tensor:
    """Rows through a head; one that takes `Tokens` sees them as the patches of as many images."""
    try:
        return head(some)
    except (AttributeError, TypeError):
        alone = some[:, None]
        return head(Tokens(some, alone[:, :0], alone, (1, 1, 1))).flatten(0, -2)


@check("head", "sizes", "let `shape` tell what comes out, and how many parameters there are")
def sizes(part: Part) -> Iterator[str]:
    """Rows come out with as many numbers as declared, finite, and it has as many parameters as declared."""
    shape = part.component.shape(part.chosen.options, WIDTH)
    head = construct(part.chosen, WIDTH)
    if (count := sum(p.numel() for p in head.parameters())) != shape.parameters:
        yield f"it has {count} parameters, and declares {shape.parameters}"
    with torch.no_grad():
        found = through(head, rows())
    if tuple(found.shape) != (ROWS, shape.outputs):
        yield f"{ROWS} rows come out as {tuple(found.shape)}, expected {(ROWS, shape.outputs)}"
    if not bool(torch.isfinite(found).all()):
        yield "what comes out is not finite"


@check("head", "gradients", "take out what nothing runs through, or let it require no gradient")
def head_gradients(part: Part) -> Iterator[str]:
    """A gradient reaches every parameter that requires one, and the rows."""
    head, some = construct(part.chosen, WIDTH), rows().requires_grad_()
    found = through(head, some)
    (found * torch.randn(found.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    for name, parameter in head.named_parameters():
        if parameter.requires_grad and parameter.grad is None:
            yield f"no gradient reaches {name}"
    if some.grad is None or not bool(some.grad.any()):
        yield "no gradient reaches the rows"


@check("head", "state", "register what is kept as buffers or parameters, and compute in float32 what bf16 cannot hold")
def head_state(part: Part) -> Iterator[str]:
    """The same rows come out the same, also of a fresh head that takes over its state, and about so in bf16."""
    head, fresh = (construct(part.chosen, WIDTH) for _ in range(2))
    fresh.load_state_dict(head.state_dict())
    with torch.no_grad():
        first, again, taken_over = through(head, rows()), through(head, rows()), through(fresh, rows())
        with torch.autocast("cpu", torch.bfloat16):
            coarse = through(head, rows())
    if not torch.equal(first, again):
        yield "the same rows come out otherwise the second time"
    if not torch.equal(first, taken_over):
        yield "a fresh head with its state gives something else"
    if not float((first - coarse).abs().mean()) < COARSE * float(first.std().clamp_min(1e-3)):
        yield "under bf16 rows come out far from those of float32, or not finite"


@check(
    "target",
    "probabilities",
    "compute in float32; note the logits in forward, and update what is kept in after_step alone",
)
def probabilities(part: Part) -> Iterator[str]:
    """Logits, in bf16 too, become rows of probabilities in float32; what is kept changes in `after_step` alone, not in evaluation."""
    one = SingleProcess(None, torch.device("cpu"))
    target = construct(part.chosen, OUTPUTS, one)
    logits = torch.randn(ROWS, OUTPUTS, generator=torch.Generator().manual_seed(2))
    for given in (logits, logits.bfloat16()):
        found = target(given, 0.1)
        if found.shape != logits.shape or found.dtype != torch.float32:
            yield f"{given.dtype} logits become {tuple(found.shape)} {found.dtype}, expected {tuple(logits.shape)} torch.float32"
        elif not bool((found >= 0).all()) or not torch.allclose(found.sum(1), torch.ones(ROWS), atol=1e-3):
            yield f"{given.dtype} logits become rows that are no probabilities"
    again = target(logits, 0.1)
    if not torch.allclose(again, target(logits, 0.1)):
        yield "the same logits give other probabilities before the step has ended"
    target.after_step(one)
    target.eval()
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    target(10 * logits, 0.1)
    target.after_step(one)
    if any(not torch.equal(tensor, before[name]) for name, tensor in target.state_dict().items()):
        yield "what it keeps changes in evaluation"


@check("target", "state", "register what is kept as buffers (`register_buffer`)")
def target_state(part: Part) -> Iterator[str]:
    """After steps a fresh target that takes over its state gives the same probabilities."""
    one = SingleProcess(None, torch.device("cpu"))
    target, fresh = (construct(part.chosen, OUTPUTS, one) for _ in range(2))
    logits = torch.randn(ROWS, OUTPUTS, generator=torch.Generator().manual_seed(2))
    for number in range(3):
        target(logits + number * torch.arange(OUTPUTS), 0.1)
        target.after_step(one)
    fresh.load_state_dict(target.state_dict())
    if not torch.equal(target(logits, 0.1), fresh(logits, 0.1)):
        yield "a fresh target with its state gives other probabilities"
