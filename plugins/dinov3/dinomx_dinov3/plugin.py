"""Declarations: DINOv3's Gram loss, head, backbone and recipes."""

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from dinomx_core import (
    Backbone,
    BackboneShape,
    DataError,
    Draft,
    Frozen,
    Head,
    HeadShape,
    HowMasked,
    Length,
    Loss,
    Recipe,
    Request,
    hookimpl,
    not_empty,
    not_negative,
    option,
    positive,
)
from dinomx_core.builtin.families import Hf, hf_shape
from dinomx_dinov1.plugin import Projection, mlp_parameters
from dinomx_dinov2.plugin import Transformer, refuse_scratch, shared_options
from dinomx_dinov3 import convnext

DINOMX_API = 1

TEACHER = "gram"  # the network's name


@attrs.frozen
class Gram:
    """Keep the similarities between patches as another network has them (Siméoni et al. 2025, section 4.2)."""

    teacher: str = option(
        "start",
        '"start": the teacher as the run or stage begins; "ema": the teacher as it is at each step; or a run, checkpoint or '
        "model folder",
        check=not_empty('name "start", "ema", a run, a checkpoint or a model folder'),
    )
    refresh_every: Length = option(
        Length(0), "stretch after which the Gram teacher takes over the teacher's weights; 0: never"
    )
    refresh_from: Length = option(Length(0), "first step at which it may")
    refreshes: int = option(0, "how often it may at the most; 0: any number", check=not_negative)
    student_view: str = option("global", "the student's crops")
    teacher_view: str = option(
        "global", 'the Gram teacher\'s crops of the same places, such as the larger ones of "gram"'
    )
    masked: bool = option(False, "the student's crops have masked patches (DINOv3); needs [masking]")
    normalised: bool = option(True, "cosines of patches, or their plain products")
    level: Literal["image", "batch"] = option(
        "image", "compare the patches of each image, or of all images of the batch"
    )
    tokens: Literal["all", "masked", "unmasked"] = option(
        "all", 'patches that are compared; but for "all", at batch level'
    )
    negatives: Literal["keep", "remove", "remove-teacher"] = option(
        "keep", "negative similarities: compared, set to 0 in both, or set to 0 in the Gram teacher's only"
    )
    antialias: bool = option(False, "smooth the Gram teacher's patches before they come down to the student's grid")


def gram_requests(options: Gram) -> list[Request]:
    """All patch tokens of both, with their grids."""
    how: HowMasked = "replace" if options.masked else "none"
    network = "teacher" if options.teacher == "ema" else TEACHER
    return [
        Request("student", options.student_view, how, select="all"),
        Request(network, options.teacher_view, select="all"),
    ]


def gram_networks(options: Gram) -> list[Frozen]:
    """The Gram teacher, unless it is the teacher itself."""

    def refresh(done: int, lengths: Mapping[str, int]) -> bool:
        every, first = lengths["refresh_every"], lengths["refresh_from"]
        if not every or done < first or done % every:
            return False
        number = done // every - max(0, -(-first // every) - 1)
        return not options.refreshes or number <= options.refreshes

    return [] if options.teacher == "ema" else [Frozen(TEACHER, options.teacher, "teacher", refresh)]


def check_gram(options: Gram, draft: Draft) -> list[tuple[str, str]]:
    """Both see the same places, and the tokens that are left fit the level."""
    problems = []
    views = {view.name: view for view in draft.views}
    if options.tokens != "all" and options.level == "image":
        problems.append(("level", f'images have different numbers of {options.tokens} patches; set level = "batch"'))
    student, teacher = views.get(options.student_view), views.get(options.teacher_view)
    if not options.refresh_every.amount and (options.refreshes or options.refresh_from.amount):
        problems.append(
            (
                "refresh_every",
                "is 0, so the Gram teacher is never refreshed; set it, or leave the other refresh options out",
            )
        )
    if options.tokens != "all" and student and not student.masked:
        problems.append(("tokens", f'the view "{student.name}" has no masks; add [masking], or set tokens = "all"'))
    if student and teacher and (student.places or student.name) != (teacher.places or teacher.name):
        message = f'"{teacher.name}" crops lie at other places than "{student.name}" crops; they must be the same'
        problems.append(("teacher_view", message))
    elif student and teacher and student.size.height * teacher.size.width != student.size.width * teacher.size.height:
        problems.append(
            ("teacher_view", f"crops of {teacher.size} px have another shape than those of {student.size} px")
        )
    if options.teacher == "ema" and options.refresh_every.amount:
        problems.append(("refresh_every", "the teacher itself needs no refreshing; set 0"))
    return problems


@attrs.frozen
class Dinov3Head(Projection):
    """MLP, L2 norm, and a plain linear layer of prototypes (Siméoni et al. 2025)."""

    init_std: float = option(0.02, "standard deviation of the initial prototypes", check=positive)


def head_shape(options: Dinov3Head, width: int) -> HeadShape:
    """Parameters of the MLP and the prototypes."""
    return HeadShape(options.prototypes, mlp_parameters(options, width) + options.prototypes * options.bottleneck)


def at_least_one(instance: Any, attribute: Any, value: float) -> None:
    """attrs validator: the larger end of a factor's range."""
    if not value >= 1:
        raise ValueError(f"must be 1 (off) or more, got {value}")


@attrs.frozen
class Dinov3ViT(Transformer):
    """DINOv3's vision transformer on `transformers.DINOv3ViTModel`: rotary positions, registers, LayerScale."""

    registers: int = option(4, "register tokens, from scratch", check=not_negative)
    mlp_ratio: float = option(4.0, "hidden width of a block's MLP over `width`, from scratch", check=positive)
    swiglu: bool = option(False, "a gated MLP, from scratch")
    layer_scale: float = option(1e-5, "initial scale of each branch, from scratch", check=positive)
    qkv_bias: bool = option(
        True, "biases on query and value, from scratch; a key's would change nothing and is left out"
    )
    proj_bias: bool = option(True, "bias on the attention's output, from scratch")
    mlp_bias: bool = option(True, "biases in the MLP, from scratch")
    layer_norm_eps: float = option(1e-5, "epsilon of the layer norms, from scratch", check=positive)
    init_std: float = option(
        0.02,
        "standard deviation of the initial weights; narrow models learn faster with about 1 / sqrt(width)",
        check=positive,
    )
    rope_base: float = option(100.0, "base of the rotary frequencies, from scratch", check=positive)
    rope_shift: float = option(
        0.0, "in training, coordinates move by up to this share of half the image", check=not_negative
    )
    rope_jitter: float = option(
        1.0,
        "in training, each axis is scaled by a log-uniform factor of up to this, or one over it",
        check=at_least_one,
    )
    rope_rescale: float = option(
        2.0,
        "in training, both axes are scaled by a log-uniform factor of up to this, or one over it",
        check=at_least_one,
    )


ROPE = ("rope_shift", "rope_jitter", "rope_rescale")


def dinov3_from_weights(options: Dinov3ViT, weights: str) -> Dinov3ViT:
    """The same sizes and training options, from weights."""
    kept = {name: getattr(options, name) for name in ROPE}
    return Dinov3ViT(**{**shared_options(options), **kept, "weights": weights})


def as_hf(options: Dinov3ViT) -> Hf:
    """The `hf` options that these come to."""
    shared = {**shared_options(options), "mask_token": True}
    training = {
        "pos_embed_shift": options.rope_shift or None,
        "pos_embed_jitter": options.rope_jitter if options.rope_jitter > 1 else None,
        "pos_embed_rescale": options.rope_rescale if options.rope_rescale > 1 else None,
    }
    if options.weights:
        return Hf(**shared, config=training)
    hidden = round((options.width or 384) * options.mlp_ratio)
    if hidden < 1:
        raise DataError(f"{options.mlp_ratio:g} leaves the MLP no hidden feature", "mlp_ratio")
    config: dict[str, Any] = {
        **training,
        "num_register_tokens": options.registers,
        "intermediate_size": hidden,
        "use_gated_mlp": options.swiglu,
        "hidden_act": "silu" if options.swiglu else "gelu",
        "layerscale_value": options.layer_scale,
        "query_bias": options.qkv_bias,
        "key_bias": False,
        "value_bias": options.qkv_bias,
        "proj_bias": options.proj_bias,
        "mlp_bias": options.mlp_bias,
        "layer_norm_eps": options.layer_norm_eps,
        "initializer_range": options.init_std,
        "rope_theta": options.rope_base,
    }
    return Hf(**{**shared, "patch_size": options.patch_size or 16}, family="dinov3_vit", config=config)


def dinov3_shape(options: Dinov3ViT, channels: int, image_size: int) -> BackboneShape:
    """Sizes and the exact number of parameters. Raises DataError for bad weights."""
    if options.weights:
        refuse_scratch(options, but=ROPE)
    return hf_shape(as_hf(options), channels, image_size, "dinov3_vit")


@hookimpl
def dinomx_losses():
    yield Loss(
        "gram", Gram, "dinomx_dinov3.gram:GramLoss", requests=gram_requests, networks=gram_networks, check=check_gram
    )


@hookimpl
def dinomx_heads():
    yield Head("dinov3", Dinov3Head, "dinomx_dinov3.head:Dinov3Head", shape=head_shape)


@hookimpl
def dinomx_backbones():
    yield Backbone(
        "dinov3-vit",
        Dinov3ViT,
        "dinomx_dinov3.backbone:build_dinov3",
        shape=dinov3_shape,
        from_weights=dinov3_from_weights,
    )
    yield Backbone(
        "dinov3-convnext",
        convnext.ConvNext,
        "dinomx_dinov3.convnext_backbone:build_convnext",
        shape=convnext.convnext_shape,
        from_weights=convnext.convnext_from_weights,
    )


@hookimpl
def dinomx_recipes():
    for name, summary in (
        ("dinov3", "DINOv3 ViT-L/16, the pretraining stage with constant schedules"),
        ("dinov3-stages", "DINOv3 whole: pretraining, Gram anchoring, high resolution, in three stages"),
        ("dinov3-small", "DINOv3 for small images, small data and a CPU or one GPU"),
        ("dinov3-continue", "continued DINOv3 pretraining from released weights"),
    ):
        yield Recipe(name, f"dinomx_dinov3:recipes/{name}.toml", summary)
