"""Declarations: DINO's loss, target, head, backbone and recipes."""

import math
from itertools import pairwise
from typing import Literal

import attrs

from dinomx_core import (
    Backbone,
    BackboneShape,
    Chosen,
    Draft,
    Head,
    HeadShape,
    HowMasked,
    Length,
    Loss,
    Recipe,
    Request,
    Schedule,
    Target,
    below_one,
    fraction,
    hookimpl,
    not_negative,
    option,
    positive,
    schedule_of,
    slot,
)
from dinomx_core.builtin.families import FAMILIES, Known
from dinomx_core.builtin.family_tensors import tensors_of

DINOMX_API = 1


@attrs.frozen
class Centering:
    """Teacher logits minus a running mean, sharpened by the temperature (Caron et al. 2021, equation 4)."""

    momentum: float = option(0.9, "share of the centre that is kept each step", check=fraction)


@attrs.frozen
class PrototypeLoss:
    """What losses over prototypes have in common."""

    target: Chosen = slot("target", "centering", "how teacher logits become probabilities")
    student_temperature: float = option(0.1, "divides the student's logits", check=positive)
    teacher_temperature: Schedule = option(
        Schedule(start=0.04, peak=0.07, warmup=Length(10, "%")),
        "divides the teacher's logits",
        check=schedule_of(positive),
    )


@attrs.frozen
class Dino(PrototypeLoss):
    """Cross-entropy between teacher and student class tokens of different crops (Caron et al. 2021, equation 2)."""

    head: str = option("dino", "label of the head that makes the logits")
    local_weight: Schedule = option(
        Schedule.constant(1.0), "factor of the pairs with a local crop (DINOv3)", check=schedule_of(not_negative)
    )
    masked: bool = option(False, "the student's global crops have masked patches (DINOv2); needs [masking]")
    global_view: str = option("global", "crops that the teacher sees, and the student too")
    local_view: str = option("local", 'crops that only the student sees; "": none')


def dino_requests(options: Dino) -> list[Request]:
    """Class tokens through the head: the student's of every crop, the teacher's of the global ones."""
    how: HowMasked = "replace" if options.masked else "none"
    student = [Request("student", options.global_view, how, head=options.head)]
    if options.local_view:
        student.append(Request("student", options.local_view, head=options.head))
    return [*student, Request("teacher", options.global_view, head=options.head)]


def check_dino(options: Dino, draft: Draft) -> list[tuple[str, str]]:
    """There must be a pair of different crops to compare."""
    counts = {view.name: view.count for view in draft.views}
    if options.local_view == options.global_view:
        return [("local_view", "is the global view; a crop would be compared with itself")]
    if options.local_view and options.local_view not in counts:
        return [("local_view", f'no crops are called "{options.local_view}"; make some, or set local_view = ""')]
    if counts.get(options.global_view, 0) + counts.get(options.local_view, 0) == 1:
        what = f'two "{options.global_view}" crops or local ones'
        return [("", f"compares different crops of an image, and there is only one; make {what}")]
    return []


@attrs.frozen
class Projection:
    """What the heads of DINO, DINOv2 and DINOv3 have in common: an MLP, an L2 norm and a layer of prototypes."""

    prototypes: int = option(65536, "outputs K", check=attrs.validators.ge(2))
    hidden: int = option(2048, "width of the hidden layers", check=positive)
    bottleneck: int = option(
        256, "width before the prototypes; initial logits spread by 1 / sqrt(bottleneck)", check=positive
    )
    layers: int = option(3, "linear layers before the prototypes", check=positive)


def projection_widths(options: Projection, width: int) -> list[int]:
    """From the tokens to the bottleneck."""
    return [width, *[options.hidden] * (options.layers - 1), options.bottleneck]


def mlp_parameters(options: Projection, width: int) -> int:
    """Of the linear layers before the prototypes."""
    return sum(a * b + b for a, b in pairwise(projection_widths(options, width)))


@attrs.frozen
class DinoHead(Projection):
    """MLP, L2 norm, and a weight-normed layer of prototypes (Caron et al. 2021, appendix C)."""

    train_magnitude: bool = option(False, "train the length of each prototype (DINOv2) or keep it at 1 (DINO)")


def head_shape(options: DinoHead, width: int) -> HeadShape:
    """Parameters of the MLP, the prototypes' directions and their lengths."""
    return HeadShape(options.prototypes, mlp_parameters(options, width) + options.prototypes * (options.bottleneck + 1))


@attrs.frozen
class ViT:
    """A vision transformer from scratch on `transformers.ViTModel`, any image size and channel count."""

    width: int = option(384, "features of a token", check=positive)
    depth: int = option(12, "blocks", check=positive)
    heads: int = option(6, "attention heads of a block", check=positive)
    mlp_ratio: float = option(4.0, "hidden width of a block's MLP over `width`", check=positive)
    patch_size: int = option(16, "side of a patch in pixels", check=positive)
    image_size: int = option(
        0, "side in pixels that the position grid is made for; 0: the global crops'", check=not_negative
    )
    positions: Literal["size", "offset"] = option(
        "size", "interpolation to other grids: by target size, or by a scale with 0.1 added as DINO's code has it"
    )
    drop_path: float = option(
        0.1, "probability that the last block's branches are skipped; linear in depth from 0", check=below_one
    )
    qkv_bias: bool = option(True, "biases on query, key and value")
    mask_token: bool = option(False, "a learnt token for masked patches")
    layer_norm_eps: float = option(1e-6, "epsilon of the layer norms", check=positive)
    init_std: float = option(
        0.02,
        "standard deviation of the initial weights; narrow models learn faster with about 1 / sqrt(width)",
        check=positive,
    )


def vit_shape(options: ViT, channels: int, image_size: int) -> BackboneShape:
    """Sizes, and its parameters by name."""
    d, p, mlp = options.width, options.patch_size, round(options.width * options.mlp_ratio)
    sizes = {"hidden_size": d, "num_hidden_layers": options.depth, "patch_size": p, "intermediate_size": mlp}
    config = {**sizes, "image_size": options.image_size or image_size, "qkv_bias": options.qkv_bias}
    known = Known("vit", FAMILIES["vit"], config, None)
    tensors = tensors_of(known, channels, options.mask_token)
    return BackboneShape(
        d, options.depth, options.heads, mlp, p, channels, 1, sum(map(math.prod, tensors.values())),
        masks=options.mask_token, layout=known.family.layout, tensors=tensors,
    )  # fmt: skip


def check_vit(options: ViT, draft: Draft) -> list[tuple[str, str]]:
    """Heads divide the width; the position grid is a whole number of patches."""
    problems = []
    if options.width % options.heads:
        problems.append(("heads", f"width {options.width} does not divide over {options.heads} heads"))
    if options.image_size % options.patch_size:
        problems.append(("image_size", f"{options.image_size} is not a multiple of patch_size {options.patch_size}"))
    if round(options.width * options.mlp_ratio) < 1:
        problems.append(("mlp_ratio", f"{options.mlp_ratio} leaves the MLP no hidden feature"))
    return problems


@hookimpl
def dinomx_losses():
    yield Loss("dino", Dino, "dinomx_dinov1.loss:DinoLoss", requests=dino_requests, check=check_dino)


@hookimpl
def dinomx_targets():
    yield Target("centering", Centering, "dinomx_dinov1.target:CenteringTarget")


@hookimpl
def dinomx_heads():
    yield Head("dino", DinoHead, "dinomx_dinov1.head:DinoHead", shape=head_shape)


@hookimpl
def dinomx_backbones():
    yield Backbone("vit", ViT, "dinomx_dinov1.backbone:ViTBackbone", shape=vit_shape, check=check_vit)


@hookimpl
def dinomx_recipes():
    yield Recipe(
        "dinov1",
        "dinomx_dinov1:recipes/dinov1.toml",
        "DINO ViT-S/16 with the paper's values (100 epochs of ImageNet-1k)",
    )
    yield Recipe(
        "dinov1-small", "dinomx_dinov1:recipes/dinov1-small.toml", "DINO for small images, small data and a CPU"
    )
