"""Declarations: VICReg's loss and its expander."""

from collections.abc import Iterable
from itertools import pairwise

import attrs

from dinomx_core import Draft, Head, HeadShape, Loss, Request, hookimpl, not_negative, option, positive

DINOMX_API = 1


@attrs.frozen
class Vicreg:
    """Alike for crops of an image, apart and without redundancy over the batch; no teacher (Bardes, Ponce & LeCun 2022)."""

    head: str = option("expander", "label of the head that makes the embeddings")
    view: str = option("global", "crops that are compared, two or more of an image")
    invariance: float = option(25.0, "weight of the distance between crops of an image", check=not_negative)
    variance: float = option(25.0, "weight of what standard deviations lack", check=not_negative)
    covariance: float = option(1.0, "weight of covariances between features", check=not_negative)
    margin: float = option(1.0, "standard deviation over the batch below which a feature is spread", check=positive)
    eps: float = option(1e-4, "added to variances before the root", check=positive)


def requests(options: Vicreg) -> list[Request]:
    """The student's class tokens, or means of patches, through the head."""
    return [Request("student", options.view, head=options.head)]


def check(options: Vicreg, draft: Draft) -> list[tuple[str, str]]:
    """There are crops and images to compare, and no collapse is asked for."""
    problems = []
    if {view.name: view.count for view in draft.views}.get(options.view) == 1:
        problems.append(("view", f'there is one "{options.view}" crop of an image, and two or more are compared'))
    if draft.batch_size == 1:
        problems.append(("", "looks at differences between images, and a step has one; enlarge run.batch_size"))
    if not options.variance:
        problems.append(("variance", "without it all images get the same embedding; raise it"))
    return problems


@attrs.frozen
class Expander:
    """Linear layers with batch norm and ReLU between them, over the rows of all processes (Bardes, Ponce & LeCun 2022, section 4.2)."""

    outputs: int = option(8192, "features of the embeddings", check=attrs.validators.ge(2))
    hidden: int = option(8192, "width of the hidden layers", check=positive)
    layers: int = option(3, "linear layers", check=positive)


def widths(options: Expander, width: int) -> list[int]:
    """From the tokens to the embeddings."""
    return [width, *[options.hidden] * (options.layers - 1), options.outputs]


def expander_shape(options: Expander, width: int) -> HeadShape:
    """Weights of the linear layers, scale and shift of the norms; the last layer has a bias."""
    linear = sum(inputs * outputs for inputs, outputs in pairwise(widths(options, width)))
    return HeadShape(options.outputs, linear + options.outputs + 2 * options.hidden * (options.layers - 1))


@hookimpl
def dinomx_losses() -> Iterable[Loss]:
    yield Loss("vicreg", Vicreg, "dinomx_vicreg.loss:VicregLoss", requests=requests, check=check)


@hookimpl
def dinomx_heads() -> Iterable[Head]:
    yield Head("expander", Expander, "dinomx_vicreg.expander:Expander", shape=expander_shape)
