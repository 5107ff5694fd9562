"""What is looked at: a config's data, its intensity and its crops, also where the plan would refuse the rest of it."""

import copy
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs

from dinomx_core.declare.components import Dataset
from dinomx_core.declare.discover import Registry, discover
from dinomx_core.declare.facts import DataInfo
from dinomx_core.declare.values import Chosen
from dinomx_core.errors import ConfigError, DataError, Problem
from dinomx_core.planning import document
from dinomx_core.planning.plan import Env, Plan, Source
from dinomx_core.planning.planner import make_plan
from dinomx_core.planning.reader import to_spec
from dinomx_core.planning.spec import RunSpec
from dinomx_core.planning.walk import chosen_parts, tables


@attrs.frozen
class Subject:
    """A config's first stage. info: of its data, whose channels are those before the intensity; problems: why `plan` would refuse it."""

    spec: RunSpec
    seed: int
    info: DataInfo
    warnings: tuple[str, ...]
    problems: tuple[Problem, ...]

    def spoilt(self, *tables: str) -> bool:
        """Whether something is wrong in one of these tables."""
        return any(problem.key.partition(".")[0] in tables for problem in self.problems)

    @property
    def others(self) -> dict[str, Chosen]:
        """Data sets beside the training's, by their tables; each once."""
        found: dict[str, Chosen] = {}
        seen = [(self.spec.data.component.name, repr(self.spec.data.options))]
        for path, chosen in chosen_parts(tables(self.spec)):
            what = (chosen.component.name, repr(chosen.options))
            if isinstance(chosen.component, Dataset) and path[0] != "data" and what not in seen:
                seen.append(what)
                found[".".join(path)] = chosen
        return found


def subject_of(
    config: str | Path | dict[str, Any], overrides: list[str], seed: int | None, plugins: Iterable[ModuleType]
) -> Subject:
    """Read a config. Raises ConfigError where it cannot be typed, or its data cannot be read."""
    registry = discover(plugins)
    tables_, source, stage = first_stage(config, overrides, registry)
    spec = to_spec(tables_, registry)
    try:
        env = attrs.evolve(Env.here(), world=None)
        plan: Plan = make_plan(spec, tables_, env, registry, source, stage)
    except ConfigError as error:
        if any(problem.key.startswith("data.") for problem in error.problems):
            raise
        info = inspected(spec, error)
        return Subject(spec, spec.run.seed if seed is None else seed, info, (), tuple(error.problems))
    factor = spec.intensity.component.channels(spec.intensity.options, 1)
    info = attrs.evolve(plan.data, channels=plan.data.channels // factor)
    return Subject(spec, plan.seed if seed is None else seed, info, plan.warnings, ())


def inspected(spec: RunSpec, why: ConfigError) -> DataInfo:
    """What the data hold, where more files are broken than a run allows, too. Raises the reason why the plan refuses them where that is all
    there is to say of them."""
    try:
        return spec.data.component.inspect(spec.data.options)
    except DataError:
        raise why from None


def first_stage(
    config: str | Path | dict[str, Any], overrides: list[str], registry: Registry
) -> tuple[document.Document, Source, str]:
    """The tables of a config's first stage, named after its file; and the stage's name."""
    if isinstance(config, dict):
        parsed, name, place = document.Document(copy.deepcopy(config), {(): "config"}), "run", "config"
    else:
        place, name = str(config), Path(config).stem
        parsed = document.parse(document.read_text(Path(config)), place)
    name_of_stage, stage = next(iter(document.load(parsed, registry, overrides).items()))
    run = stage.data.setdefault("run", {})
    if isinstance(run, dict):
        stage.data["run"] = {"name": name, **run}
    return stage, Source("", place, tuple(overrides), ""), name_of_stage
