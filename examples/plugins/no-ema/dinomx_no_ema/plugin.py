"""Declarations: the student as its own teacher."""

from collections.abc import Iterable

import attrs

from dinomx_core import Strategy, hookimpl

DINOMX_API = 1


@attrs.frozen
class NoEma:
    """No moving average: the student, with its gradients stopped, is the teacher (Chen & He 2021, SimSiam)."""


@hookimpl
def dinomx_strategies() -> Iterable[Strategy]:
    yield Strategy("no-ema", NoEma, "dinomx_no_ema.strategy:NoEmaStrategy")
