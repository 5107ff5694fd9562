"""Declarations."""

from dinomx_core.declare.hooks import hookimpl


@hookimpl
def dinomx_evaluators():
    return ()
