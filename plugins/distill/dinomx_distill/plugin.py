"""Declarations: distillation from features and from heads."""

import hashlib
from collections.abc import Iterable
from typing import Literal

import attrs

from dinomx_core import Draft, Frozen, Loss, Recipe, Request, Strategy, hookimpl, not_empty, not_negative, option

DINOMX_API = 1

some_model = not_empty("name a run, a checkpoint, a model folder, a checkpoint file or a model id")


@attrs.frozen
class DistillFeatures:
    """Distance of the student's tokens, through a projection, from those of any other model (Hinton et al. 2015; Ranzinger et al. 2024)."""

    teacher: str = option(
        doc="run, checkpoint, model folder, checkpoint file or model id that is learnt from; it needs no heads",
        check=some_model,
    )
    view: str = option("global", "crops that both see, unmasked")
    cls: float = option(
        1.0, "weight of the class tokens, or the patches' mean where a model has none", check=not_negative
    )
    patches: float = option(
        1.0, "weight of the patch tokens; another grid is resampled to the student's", check=not_negative
    )
    distance: Literal["cosine", "smooth-l1", "mse"] = option(
        "cosine",
        "cosine: 1 - cosine; the others compare with the teacher's tokens brought to mean 0 and variance 1 each",
    )
    projector: Literal["linear", "mlp"] = option("linear", "from the student's width to the teacher's; not exported")


def teacher_name(options: DistillFeatures) -> str:
    """The network's name in requests; the same for losses that learn from the same model."""
    return f"distill-{hashlib.blake2b(options.teacher.encode(), digest_size=4).hexdigest()}"


def features_requests(options: DistillFeatures) -> list[Request]:
    """All tokens of both."""
    return [Request("student", options.view, select="all"), Request(teacher_name(options), options.view, select="all")]


def features_networks(options: DistillFeatures) -> list[Frozen]:
    """The model that is learnt from."""
    return [Frozen(teacher_name(options), options.teacher, "teacher", foreign=True)]


def check_features(options: DistillFeatures, draft: Draft) -> list[tuple[str, str]]:
    """Something is compared."""
    if options.cls or options.patches:
        return []
    return [("cls", "and patches are both 0, so nothing is compared; raise one")]


@attrs.frozen
class DistillHeads:
    """A trained model with its heads takes the teacher's place in the losses (Oquab et al. 2023, section 5).

    What is measured and exported is the moving average of the student.
    """

    teacher: str = option(doc="run or checkpoint, or a converted or reference checkpoint with heads", check=some_model)


def heads_networks(options: DistillHeads) -> list[Frozen]:
    """The network that requests for the teacher go to."""
    return [Frozen("teacher", options.teacher, "teacher", foreign=True, heads=True)]


@hookimpl
def dinomx_losses() -> Iterable[Loss]:
    yield Loss(
        "distill-features",
        DistillFeatures,
        "dinomx_distill.features:FeatureLoss",
        requests=features_requests,
        networks=features_networks,
        check=check_features,
    )


@hookimpl
def dinomx_strategies() -> Iterable[Strategy]:
    yield Strategy("distill-heads", DistillHeads, "dinomx_distill.heads:HeadsStrategy", networks=heads_networks)


@hookimpl
def dinomx_recipes() -> Iterable[Recipe]:
    yield Recipe(
        "dinov2-distill",
        "dinomx_distill:recipes/dinov2-distill.toml",
        "a ViT-S from a larger DINOv2 run with its heads",
    )
