"""Declarations that lack what a reader needs, and lead nowhere."""

import attrs

from dinomx_core import Evaluator, hookimpl


@attrs.frozen
class Inner:
    depth: int = 3


@attrs.frozen
class Untold:
    inner: Inner = Inner()


@hookimpl
def dinomx_evaluators():
    yield Evaluator("untold", Untold, "tests.broken_plugins.untold:nowhere")
    yield Evaluator("module", Untold, "tests.broken_plugins.untold:__doc__")
