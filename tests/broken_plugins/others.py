"""Strategy, parallelism, evaluator, recipe and command with a fault; "" has none."""

import attrs

from dinomx_core import Command, Evaluator, Parallelism, Processes, Recipe, Strategy, hookimpl, option

PARTS = "tests.broken_plugins.other_parts:"


@attrs.frozen
class Faulty:
    """One thing is wrong."""

    fault: str = option("", "which")


@attrs.frozen
class Apart(Processes):
    """Processes that do not share their gradients."""


def adapt(options, parameters):
    """The last norm stands still."""
    still = frozenset(name for name in parameters.shapes if name.startswith("model.layernorm."))
    return attrs.evolve(parameters, frozen=still if options.fault != "declared" else still - {"model.layernorm.bias"})


@hookimpl
def dinomx_strategies():
    yield Strategy("faulty", Faulty, PARTS + "FaultyStrategy", adapt=adapt)


@hookimpl
def dinomx_parallelisms():
    yield Parallelism("apart", Apart, PARTS + "ApartProcesses")


@hookimpl
def dinomx_evaluators():
    yield Evaluator("faulty", Faulty, PARTS + "FaultyEvaluator")


@hookimpl
def dinomx_recipes():
    yield Recipe("faulty", "tests.broken_plugins:faulty.toml", "an option that nobody has")


@hookimpl
def dinomx_commands():
    yield Command("faulty", PARTS + "command", "Do nothing.")
