"""Declarations. No torch here: the plan and `dinomx --help` read them."""

import attrs

from dinomx_core import DataError, Parameters, Strategy, hookimpl, option

DINOMX_API = 1


@attrs.frozen
class MyName:
    """Train the biases and leave everything else as it is (BitFit, Ben Zaken et al. 2022)."""

    ends: list[str] = option([".bias"], "how the names of parameters that train end")


def my_name_adapt(options: MyName, parameters: Parameters) -> Parameters:
    """What the plan counts. Raises DataError where nothing would train."""
    still = frozenset(name for name in parameters.shapes if not name.endswith(tuple(options.ends)))
    if still == frozenset(parameters.shapes):
        raise DataError(f"no parameter's name ends so; the first is {min(still)}", "ends")
    return attrs.evolve(parameters, frozen=parameters.frozen | still)


@hookimpl
def dinomx_strategies():
    yield Strategy("my-name", MyName, "dinomx_my_name.strategy:MyNameStrategy", adapt=my_name_adapt)
