"""Declarations: LoRA."""

import fnmatch
from collections.abc import Iterable, Mapping
from typing import Literal

import attrs

from dinomx_core import DataError, Parameters, Strategy, below_one, hookimpl, option, positive
from dinomx_core.declare.layout import Layout

DINOMX_API = 1

Role = Literal["query", "key", "value", "output", "mlp"]
SHOWN = 4  # names in a message


@attrs.frozen
class Lora:
    """Low-rank adapters on the linear layers of a frozen backbone (Hu et al. 2021), which student and teacher share."""

    rank: int = option(8, "rank of each adapter", check=positive)
    alpha: int = option(16, "an adapter's result is scaled by alpha / rank", check=positive)
    dropout: float = option(0.0, "dropout of what goes into an adapter", check=below_one)
    roles: list[Role] = option(["query", "value"], "layers of every block that get an adapter, by what they do")
    patterns: list[str] = option([], 'further linear layers of the blocks, by name ("*.11.mlp.fc?")')
    full_blocks: list[int] = option(
        [], "blocks that train whole beside the adapters, and get none (Khanna et al. 2024, ExPLoRA); -1: the last"
    )
    rslora: bool = option(False, "scale by alpha / sqrt(rank) (Kalajdzievski 2023)")
    dora: bool = option(False, "train the length of each weight row apart from its direction (Liu et al. 2024, DoRA)")


def blocks_of(options: Lora, depth: int) -> set[int]:
    """Numbers of the blocks that train whole. Raises DataError for one that is not there."""
    for number in options.full_blocks:
        if not -depth <= number < depth:
            raise DataError(f"{number}, but there are {depth} blocks", "full_blocks")
    return {number % depth for number in options.full_blocks}


def targets(options: Lora, layout: Layout, depth: int, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Names of the linear layers that get an adapter. Raises DataError where an option names none, or the rank is too large."""
    full = blocks_of(options, depth)
    inside = [name for name in shapes if 0 < layout.layer_of(name, depth) <= depth]
    linear = {n.removesuffix(".weight") for n in inside if n.endswith(".weight") and len(shapes[n]) == 2}
    found: dict[str, None] = {}
    for role in options.roles:
        of_role = [name for block in range(depth) for name in layout.modules(role, block) if name in linear]
        if not of_role:
            there = [r for r in layout.roles if any(n in linear for b in range(depth) for n in layout.modules(r, b))]
            raise DataError(f'no block has a linear layer of the role "{role}"; there are {", ".join(there)}', "roles")
        found.update(dict.fromkeys(of_role))
    for pattern in options.patterns:
        matched = sorted(fnmatch.filter(linear, pattern))
        if not matched:
            some = ", ".join(sorted(linear)[:SHOWN])
            raise DataError(f'"{pattern}" matches no linear layer of a block; there are {some}, ...', "patterns")
        if all(layout.layer_of(f"{name}.", depth) - 1 in full for name in matched):
            raise DataError(f'"{pattern}" matches layers of full_blocks only, which get no adapters', "patterns")
        found.update(dict.fromkeys(matched))
    chosen = [name for name in found if layout.layer_of(f"{name}.", depth) - 1 not in full]
    if not chosen:
        raise DataError("no layer gets an adapter; name roles or patterns, or fewer full_blocks", "roles")
    for name in chosen:
        outputs, inputs = shapes[f"{name}.weight"]
        if options.rank > min(inputs, outputs):
            raise DataError(
                f"{options.rank} is more than the {min(inputs, outputs)} that {name} ({inputs} -> {outputs}) can have; take that or "
                "less",
                "rank",
            )
    return chosen


def adapt(options: Lora, parameters: Parameters) -> Parameters:
    """Adapters beside the layers; everything else is frozen but the blocks that train whole."""
    if parameters.added:
        raise DataError(
            "comes after another strategy that puts adapters in; one is enough, with all roles and patterns"
        )
    if parameters.frozen or parameters.later:
        raise DataError(
            "freezes the whole backbone, so that what an earlier strategy freezes means nothing; put it first in strategies"
        )
    shapes = dict(parameters.shapes)
    chosen = targets(options, parameters.layout, parameters.depth, shapes)
    full = blocks_of(options, parameters.depth)
    trains = {name for name in shapes if parameters.layer_of(name) - 1 in full}
    added: dict[str, tuple[int, ...]] = {}
    for name in chosen:
        outputs, inputs = shapes[f"{name}.weight"]
        for leaf in ("weight", "bias"):
            if f"{name}.{leaf}" in shapes:
                shapes[f"{name}.base_layer.{leaf}"] = shapes.pop(f"{name}.{leaf}")
        added[f"{name}.lora_A.default.weight"] = (options.rank, inputs)
        added[f"{name}.lora_B.default.weight"] = (outputs, options.rank)
        if options.dora:
            added[f"{name}.lora_magnitude_vector.default.weight"] = (outputs,)
    return attrs.evolve(
        parameters, shapes={**shapes, **added}, frozen=frozenset(shapes) - trains, added=frozenset(added)
    )


@hookimpl
def dinomx_strategies() -> Iterable[Strategy]:
    yield Strategy("lora", Lora, "dinomx_lora.strategy:LoraStrategy", adapt=adapt)
