"""Declarations. No torch."""

from dinomx_core import Command, Evaluator, hookimpl
from dinomx_interpret.localisation import Localisation, check_localisation

DINOMX_API = 1


@hookimpl
def dinomx_evaluators():
    yield Evaluator(
        "localisation", Localisation, "dinomx_interpret.localising:LocalisationEvaluator", check=check_localisation
    )


@hookimpl
def dinomx_commands():
    yield Command("explain", "dinomx_interpret.command:explain", "Draw what a model sees in images.")
