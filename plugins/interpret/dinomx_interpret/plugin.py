"""Declarations."""

from dinomx_core import Command, hookimpl


@hookimpl
def dinomx_evaluators():
    return ()


@hookimpl
def dinomx_commands():
    yield Command("explain", "dinomx_interpret.command:explain", "Draw what a model sees in images.")
