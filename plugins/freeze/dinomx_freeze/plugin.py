"""Declarations: freezing."""

import fnmatch
from collections.abc import Iterable
from typing import Literal, get_args

import attrs

from dinomx_core import DataError, Draft, Length, Parameters, Strategy, hookimpl, not_negative, option
from dinomx_core.declare.layout import Layout

DINOMX_API = 1

Part = Literal["embeddings", "query", "key", "value", "output", "mlp", "norm", "scale", "last"]


@attrs.frozen
class Freeze:
    """Keep parts of the backbone as they are, for good or up to a step."""

    blocks: int = option(0, "lowest blocks that are frozen, and the embeddings before them", check=not_negative)
    parts: list[Part] = option(
        [],
        'further parts: "embeddings", a role of every block ("norm", "mlp", ...), or "last": what comes after the blocks',
    )
    patterns: list[str] = option([], 'further parameters, by name ("*.layernorm_*")')
    until: Length = option(Length(0), "train from this step on; 0: never")


def frozen_names(options: Freeze, layout: Layout, depth: int, names: Iterable[str]) -> set[str]:
    """Names of the parameters that are frozen. Raises DataError where an option names none."""
    if options.blocks > depth:
        raise DataError(f"{options.blocks}, but there are {depth}", "blocks")
    known = list(names)
    layers = {layout.layer_of(name, depth) for name in known}
    found = {name for name in known if options.blocks and layout.layer_of(name, depth) <= options.blocks}
    for part in options.parts:
        if part in ("embeddings", "last"):
            layer = 0 if part == "embeddings" else depth + 1
            matched = {name for name in known if layout.layer_of(name, depth) == layer}
        else:
            modules = tuple(f"{module}." for block in range(depth) for module in layout.modules(part, block))
            matched = {name for name in known if modules and name.startswith(modules)}
        if not matched:
            roles = [role for role in get_args(Part) if any(layout.modules(role, block) for block in range(depth))]
            ends = [name for name, at in (("embeddings", 0), ("last", depth + 1)) if at in layers]
            raise DataError(f'no parameter is of the part "{part}"; there are {", ".join(roles + ends)}', "parts")
        found |= matched
    for pattern in options.patterns:
        matched = set(fnmatch.filter(known, pattern))
        if not matched:
            raise DataError(f'"{pattern}" matches no parameter; the first are {", ".join(known[:4])}', "patterns")
        found |= matched
    if not found:
        raise DataError("names nothing to freeze; give blocks, parts or patterns")
    return found


def adapt(options: Freeze, parameters: Parameters) -> Parameters:
    """Frozen for good, or trained later."""
    names = frozen_names(options, parameters.layout, parameters.depth, parameters.shapes) - parameters.frozen
    if options.until.amount:
        if twice := names & parameters.later:
            raise DataError(
                f"holds back {min(twice)}, which an earlier strategy holds back already; name each in one of them",
                "until",
            )
        return attrs.evolve(parameters, later=parameters.later | names)
    return attrs.evolve(parameters, frozen=parameters.frozen | names, later=parameters.later - names)


def check_until(options: Freeze, draft: Draft) -> list[tuple[str, str]]:
    """What trains later trains at all."""
    until = options.until
    if until.unit == "steps" and until.amount >= draft.steps:
        return [("until", f"is {until.amount:g}, but the run has {draft.steps} steps; 0 freezes for good")]
    return []


@hookimpl
def dinomx_strategies() -> Iterable[Strategy]:
    yield Strategy("freeze", Freeze, "dinomx_freeze.strategy:FreezeStrategy", adapt=adapt, check=check_until)
