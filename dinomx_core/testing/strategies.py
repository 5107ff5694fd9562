"""Checks of strategies, parallelisms and evaluators: what acts on a run, or looks at it."""

import math
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dinomx_core import api
from dinomx_core.declare.facts import Parameters
from dinomx_core.declare.processes import Processes
from dinomx_core.folders import steps_in
from dinomx_core.planning.origin import describe
from dinomx_core.testing import toy
from dinomx_core.testing.findings import Skip, check
from dinomx_core.testing.runs import built, opened_by_transformers, scrambled, steps
from dinomx_core.testing.subject import Part
from dinomx_core.testing.trains import EXACT, differences_of_a_cut, differences_of_two, unsteady
from dinomx_core.training.build import Parts
from dinomx_core.training.evaluation import make_encoder, measured
from dinomx_core.training.opening import load_backbone, rebuilt

MERGED: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-4}  # adapters that go into weights round otherwise


def adapted(parts: Parts) -> Parameters | None:
    """What the plan makes of the backbone's parameters; None where the backbone does not tell them."""
    shape = parts.plan.backbone
    if shape.layout is None:
        return None
    adapting = [chosen for chosen in parts.plan.spec.strategies.values() if chosen.component.adapt]
    start = Parameters(shape.layout, shape.depth, shape.tensors)
    return reduce(lambda known, chosen: chosen.component.adapt(chosen.options, known), adapting, start)


@check(
    "strategy",
    "declared",
    "let `adapt` of the declaration say what `adapt` of the strategy does: the plan counts by it",
)
def declared(part: Part) -> Iterator[str]:
    """The backbone's parameters are those that the declaration makes of them, and those train that it says."""
    parts = built(part)
    known = adapted(parts)
    if known is None:
        raise Skip("the backbone of the run does not tell its parameters")
    found = dict(parts.student.backbone.named_parameters())
    for name in sorted(found.keys() ^ known.shapes.keys())[:3]:
        yield f"{name} is {'there, and not declared' if name in found else 'declared, and not there'}"
    for name, parameter in found.items():
        trains = name not in known.frozen
        if name in known.shapes and trains != parameter.requires_grad:
            yield f"{name} {'trains' if parameter.requires_grad else 'does not train'}, and the opposite is declared"
            break


@check(
    "strategy",
    "trains",
    "act at the moments that the contract names, and leave gradients and the optimiser to the core",
)
def trains(part: Part) -> Iterator[str]:
    """Three steps have finite numbers; what is declared to stay stays, and something else changes."""
    parts = built(part)
    before = {name: p.detach().clone() for name, p in parts.student.backbone.named_parameters()}
    yield from unsteady(steps(parts, 3))
    still = {name for name, p in parts.student.backbone.named_parameters() if not p.requires_grad}
    moved = {name for name, p in parts.student.backbone.named_parameters() if not torch.equal(p, before[name])}
    if wrong := sorted(moved & still):
        yield f"{wrong[0]} requires no gradient, and changes"
    later = (known := adapted(parts)) is not None and bool(known.later)
    if not moved and not later:
        yield "nothing of the backbone changes in three steps"


@check(
    "strategy",
    "resume",
    "keep nothing between steps but what the networks hold, or follow from the step's number",
    slow=True,
)
def resume(part: Part) -> Iterator[str]:
    """A run with it that is cut off and gone on with is the same bit for bit as in one go."""
    yield from differences_of_a_cut(part.subject, part.config())


@check(
    "strategy",
    "export",
    "undo in `merge` what `adapt` did, so that the backbone is plain and computes the same",
    slow=True,
)
def export(part: Part) -> Iterator[str]:
    """The export, in which it is undone, transformers opens, and it gives the same tokens as the checkpoint."""
    config = toy.changed(part.config(), {"run": {"steps": 2, "name": f"export-{part.component.name}"}})
    result = api.run(config, plugins=part.subject.modules, out=part.subject.place, overwrite=True)
    model = api.load(result.export, plugins=part.subject.modules)
    opened_by_transformers(result.export)
    place = result.folder / "checkpoints" / str(steps_in(result.folder / "checkpoints")[0])
    one, other = tokens(unmerged(part, place), model), tokens(model.backbone, model)
    if not torch.allclose(one, other, **MERGED):
        yield f"the export's tokens differ from the checkpoint's by up to {float((one - other).abs().max()):.2g}"


def unmerged(part: Part, place: Path) -> nn.Module:
    """A checkpoint's teacher as it was trained."""
    backbone, _ = rebuilt(describe(place, part.subject.registry))
    load_backbone(backbone, place, "teacher")
    return backbone.eval()


def tokens(backbone: nn.Module, model: Any) -> Tensor:
    """Patches of a few images."""
    pixels = torch.randn(3, model.channels, *model.preprocessing.crop, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return backbone(pixels).patches


@check("parallelism", "processes", "see how torch's own wrappers are used in `dinomx_core/builtin/ddp.py`", slow=True)
def processes(part: Part) -> Iterator[str]:
    """Two processes compute what one does, and hold the same weights afterwards."""
    if not issubclass(part.component.options, Processes):
        raise Skip("it is for one process")
    config = toy.changed(toy.CONFIG, EXACT, {"run": {"out": str(part.subject.place)}})
    yield from differences_of_two(part.subject, config, part.component.name)


@check("evaluator", "figures", "give finite floats by name; draw from generators of your own, with a fixed seed")
def figures(part: Part) -> Iterator[str]:
    """It gives finite numbers by names, the same again of the same model."""
    parts, label = built(part), part.label
    found = []
    for seed in (1, 2):
        with scrambled(seed):
            found.append(measure(parts, label))
    one, other = found
    if not one:
        yield "it gives no figure"
    for name, number in one.items():
        if not isinstance(number, float) or not math.isfinite(number):
            yield f'the figure "{name}" is {number!r}, expected a finite float'
    if one.keys() != other.keys():
        yield f"the second time it gives {', '.join(other)} in place of {', '.join(one)}"
    elif changed := [name for name in one if one[name] != other[name] and isinstance(one[name], float)]:
        yield f'of the same model "{changed[0]}" is {one[changed[0]]}, and then {other[changed[0]]}'


@check("evaluator", "untouched", "go through `encoder.encode`, and draw from generators of your own")
def untouched(part: Part) -> Iterator[str]:
    """It leaves the model, its modes and the random states of Python, NumPy and torch as they were."""
    parts, label = built(part), part.label
    backbone = parts.teacher.network.backbone
    with scrambled(3):
        before, states = picture_of(backbone), random_states()
        measure(parts, label)
        after, now = picture_of(backbone), random_states()
    for what, one in before.items():
        if not all(same(a, b) for a, b in zip(one, after[what])):
            yield f"it changes the model's {what}"
    for name, state in states.items():
        if state != now[name]:
            yield f"it draws from the random state of {name}, from which the run draws, too"


def measure(parts: Parts, label: str) -> dict[str, float]:
    """The figures of one evaluator by its own names, as the loop gets them."""
    backbone, plan = parts.teacher.network.backbone, parts.plan
    encoder = make_encoder(backbone, plan.preprocessing, plan.data.channels, parts.parallelism, parts.intensity)
    found = measured(encoder, {label: parts.evaluators[label]})
    return {name.removeprefix(f"{label}/"): value for name, value in found.items()}


def picture_of(module: nn.Module) -> dict[str, list[Any]]:
    """What may not change of a model."""
    return {
        "weights": [tensor.clone() for tensor in module.state_dict().values()],
        "training modes": [inner.training for inner in module.modules()],
        "gradients": [(p.requires_grad, p.grad is None) for p in module.parameters()],
    }


def same(one: Any, other: Any) -> bool:
    """Equality of tensors and of plain values."""
    return torch.equal(one, other) if isinstance(one, Tensor) else one == other


def random_states() -> dict[str, str]:
    """The random states, as texts. torch's is put back by the core, whatever an evaluator does."""
    import random

    import numpy as np

    return {"Python": repr(random.getstate()), "NumPy": repr(np.random.get_state(legacy=False))}
