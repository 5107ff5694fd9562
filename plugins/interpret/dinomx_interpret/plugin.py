"""Declarations. No torch."""

from dinomx_core import Evaluator, hookimpl
from dinomx_interpret.localisation import Localisation, check_localisation


@hookimpl
def dinomx_evaluators():
    yield Evaluator(
        "localisation", Localisation, "dinomx_interpret.localising:LocalisationEvaluator", check=check_localisation
    )
