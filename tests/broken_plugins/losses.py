"""A loss with a fault; "" has none."""

import attrs

from dinomx_core import Loss, Request, hookimpl, option


@attrs.frozen
class Faulty:
    """The cosine between the student's class tokens and the teacher's of the next image."""

    fault: str = option("", "what is wrong")


@hookimpl
def dinomx_losses():
    requests = [
        Request("student", "global"),
        Request("teacher", "global"),
        Request("student", "global", select="patches"),
    ]
    yield Loss(
        "faulty",
        Faulty,
        "tests.broken_plugins.loss_parts:FaultyLoss",
        requests=lambda options: requests[: 3 if options.fault == "gradients" else 2],
    )
