"""Declarations. No torch here: the plan and `dinomx --help` read them."""

import attrs

from dinomx_core import Loss, Request, hookimpl, option, positive

DINOMX_API = 1


@attrs.frozen
class MyName:
    """Keep the features of a batch apart: the variance term of VICReg (Bardes et al. 2022, equation 1)."""

    margin: float = option(1.0, "standard deviation below which a feature is pushed", check=positive)
    view: str = option("global", "crops whose class tokens are looked at")


def my_name_requests(options: MyName) -> list[Request]:
    """The student's class tokens, before any head."""
    return [Request("student", options.view)]


@hookimpl
def dinomx_losses():
    yield Loss("my-name", MyName, "dinomx_my_name.loss:MyNameLoss", requests=my_name_requests)
