"""Declarations. No torch here: the plan and `dinomx --help` read them."""

import attrs

from dinomx_core import Chosen, Evaluator, hookimpl, option, positive, slot

DINOMX_API = 1


@attrs.frozen
class MyName:
    """How evenly features lie on the sphere (Wang & Isola 2020, equation 7, with its sign turned). No labels."""

    data: Chosen = slot("dataset", "digits", "the images; labels are not used")
    images: int = option(200, "so many of the first", check=positive)
    batch_size: int = option(256, "images a forward pass", check=positive)


@hookimpl
def dinomx_evaluators():
    yield Evaluator("my-name", MyName, "dinomx_my_name.evaluator:MyNameEvaluator")
