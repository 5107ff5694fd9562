"""Declarations: DINOv2's losses, target, masking, backbones and recipes."""

from typing import Any, Literal

import attrs

from dinomx_core import (
    Backbone,
    BackboneShape,
    DataError,
    Draft,
    Head,
    HowMasked,
    Loss,
    Masking,
    Recipe,
    Request,
    Target,
    below_one,
    fraction,
    hookimpl,
    not_negative,
    option,
    ordered_pair,
    positive,
    share_range,
)
from dinomx_core.builtin.families import Hf, hf_shape
from dinomx_dinov1.plugin import DinoHead, PrototypeLoss, head_shape

DINOMX_API = 1


@attrs.frozen
class SinkhornKnopp:
    """Teacher logits as an assignment that uses all prototypes alike (Caron et al. 2020; Ruan et al. 2022 for DINO)."""

    iterations: int = option(3, "normalisations over prototypes and over rows", check=positive)


@attrs.frozen
class Ibot(PrototypeLoss):
    """Cross-entropy between teacher and student tokens of masked patches (Zhou et al. 2022, equation 3)."""

    head: str = option("ibot", 'label of the head that makes the logits; "dino" shares the DINO loss\'s')
    view: str = option("global", "crops whose patches are masked")
    masked: bool = option(
        True, "the student sees the mask; false: it learns the masked patches unmasked, as in distillation"
    )


def ibot_requests(options: Ibot) -> list[Request]:
    """Masked patches through the head: the teacher does not see the mask."""
    how: HowMasked = "replace" if options.masked else "none"
    return [
        Request("student", options.view, how, options.head, "masked"),
        Request("teacher", options.view, "none", options.head, "masked"),
    ]


@attrs.frozen
class Koleo:
    """Spread the class tokens of a batch apart: -log of the distance to the nearest (Sablayrolles et al. 2019)."""

    view: str = option("global", "crops whose class tokens are spread, those of one crop number at a time")
    masked: bool = option(False, "the student's crops have masked patches (DINOv2); needs [masking]")
    neighbours: int = option(1, "nearest neighbours that are pushed away", check=positive)
    across: Literal["rank", "all"] = option("rank", "neighbours are looked for among a rank's images, or all ranks'")
    group: int = option(0, "look among so many images in succession only; 0: among all of them", check=not_negative)


def koleo_requests(options: Koleo) -> list[Request]:
    """The student's class tokens before any head."""
    how: HowMasked = "replace" if options.masked else "none"
    return [Request("student", options.view, how)]


def check_koleo(options: Koleo, draft: Draft) -> list[tuple[str, str]]:
    """A group has room for the neighbours."""
    if options.group and options.group <= options.neighbours:
        return [("group", f"{options.group} images hold no {options.neighbours} neighbours of each; use more")]
    return []


@attrs.frozen
class Blocks:
    """Mask rectangles of patches in a share of the crops, with ratios spread evenly over the batch (Bao et al. 2022, Oquab et al. 2023)."""

    view: str = option("global", "crops that are masked")
    share: float = option(0.5, "share of the crops that are masked", check=fraction)
    ratio: list[float] = option([0.1, 0.5], "smallest and largest share of a masked crop's patches", check=share_range)
    exact: bool = option(
        False, "mask exactly the largest count of each crop's part of the range, filled up with single patches (DINOv3)"
    )
    aspect: list[float] = option([0.3, 1 / 0.3], "smallest and largest height / width of a block", check=ordered_pair)
    smallest: int = option(4, "patches of a block, at the least aimed at", check=positive)
    largest: float = option(0.5, "share of the grid that one block has at most", check=fraction)


def check_blocks(options: Blocks, draft: Draft) -> list[tuple[str, str]]:
    """At least one crop a step is masked, and in each of its sizes there is room for a block."""
    problems = []
    patch = draft.backbone.patch_size if draft.backbone else 1
    for view in (view for view in draft.views if view.name == options.view):
        crops = view.count * draft.batch_size
        if int(crops * options.share) < 1:
            problems.append(
                ("share", f"{options.share:g} of {crops} crops a step masks none; raise it, or leave [masking] out")
            )
        for size in (view.size, *view.others):
            rows, columns = (side // patch for side in size)
            patches, where = rows * columns, f"of the {rows} x {columns} patches of {size} px"
            if int(patches * options.ratio[1]) < 1:
                problems.append(("ratio", f"{options.ratio[1]:g} {where} is less than one; raise it"))
            if options.exact:
                continue
            if min(rows, columns) < 2:
                problems.append(("exact", f"no block lies within one row or column {where}; set exact = true"))
            elif options.largest * patches < options.smallest:
                message = f"a block of {options.smallest} is more than the share {options.largest:g} {where}"
                problems.append(("smallest", f"{message}; lower it, or raise largest"))
    return problems


@attrs.frozen
class Transformer:
    """What the vision transformers of DINOv2 and DINOv3 have in common."""

    weights: str = option(
        "", 'start from: folder with config.json and model.safetensors, or a model id ("owner/name"); "": from scratch'
    )
    revision: str = option("", "branch, tag or commit of a model id")
    missing: list[str] = option([], 'tensors that the weights may lack, as patterns ("*mask_token"); they start fresh')
    other_channels: Literal["refuse", "average"] = option(
        "refuse", "weights made for another number of channels: refuse them, or spread the mean of theirs"
    )
    width: int = option(0, "features of a token; 0: as the weights have it, 384 from scratch", check=not_negative)
    depth: int = option(0, "blocks; 0: as the weights have it, 12 from scratch", check=not_negative)
    heads: int = option(0, "attention heads; 0: as the weights have it, width / 64 from scratch", check=not_negative)
    patch_size: int = option(
        0, "side of a patch in pixels; 0: as the weights have it, 14 from scratch (DINOv3: 16)", check=not_negative
    )
    drop_path: float = option(0.0, "probability that a block's branches are skipped in training", check=below_one)
    drop_path_rule: Literal["linear", "uniform"] = option(
        "uniform", "uniform: the same at each block; linear: grows from 0 at the first block to the whole at the last"
    )
    drop_path_subset: bool = option(
        True, "above 0.1, compute a branch only for the images that keep it, always the same share of the batch"
    )


def shared_options(options: Transformer) -> dict[str, Any]:
    """The same for the `hf` backbone."""
    return {field.name: getattr(options, field.name) for field in attrs.fields(Transformer)}


@attrs.frozen
class Dinov2(Transformer):
    """DINOv2's vision transformer on `transformers.Dinov2Model`: LayerScale, MLP or SwiGLU, drop path over a part of the batch."""

    image_size: int = option(
        0, "side in pixels that the position grid is made for, from scratch; 0: the global crops'", check=not_negative
    )
    mlp_ratio: int = option(4, "hidden width of a block's MLP over `width`, from scratch", check=positive)
    swiglu: bool = option(False, "SwiGLU of two thirds the hidden width in place of the MLP, from scratch (ViT-g)")
    layer_scale: float = option(1e-5, "initial scale of each branch, from scratch", check=positive)
    qkv_bias: bool = option(True, "biases on query, key and value, from scratch")
    layer_norm_eps: float = option(1e-6, "epsilon of the layer norms, from scratch", check=positive)
    init_std: float = option(
        0.02,
        "standard deviation of the initial weights; narrow models learn faster with about 1 / sqrt(width)",
        check=positive,
    )
    positions: Literal["model", "offset"] = option(
        "model",
        "interpolation to other grids: as transformers has it, or by a scale with 0.1 added as DINOv2's code has it",
    )


@attrs.frozen
class Dinov2Registers(Dinov2):
    """DINOv2's vision transformer with registers, on `transformers.Dinov2WithRegistersModel` (Darcet et al. 2024)."""

    registers: int = option(4, "register tokens, from scratch", check=positive)


def as_hf(options: Dinov2) -> Hf:
    """The `hf` options that these come to."""
    shared = {**shared_options(options), "positions": options.positions, "mask_token": True}
    if options.weights:
        return Hf(**shared)
    registers = isinstance(options, Dinov2Registers)
    config: dict[str, Any] = {
        "mlp_ratio": options.mlp_ratio,
        "use_swiglu_ffn": options.swiglu,
        "layerscale_value": options.layer_scale,
        "qkv_bias": options.qkv_bias,
        "layer_norm_eps": options.layer_norm_eps,
        "initializer_range": options.init_std,
    }
    if options.image_size:
        config["image_size"] = options.image_size
    if isinstance(options, Dinov2Registers):
        config["num_register_tokens"] = options.registers
    shared["patch_size"] = options.patch_size or 14
    family = "dinov2_with_registers" if registers else "dinov2"
    return Hf(**shared, family=family, config=config)


def refuse_scratch(options: Transformer, but: tuple[str, ...] = ()) -> None:
    """Options that only a model from scratch has, set beside weights. Raises DataError naming the first."""
    shared = {field.name for field in attrs.fields(Transformer)}
    for field in attrs.fields(type(options)):
        if field.name not in (*shared, *but) and getattr(options, field.name) != field.default:
            message = "is for a model from scratch; the weights bring their own"
            raise DataError(f"{message} (a new [backbone] name drops what a recipe set)", field.name)


def from_weights(options: Transformer, weights: str) -> Transformer:
    """The same sizes, from weights."""
    return type(options)(**{**shared_options(options), "weights": weights})


def dinov2_shape(options: Dinov2, channels: int, image_size: int) -> BackboneShape:
    """Sizes and the exact number of parameters. Raises DataError for bad weights."""
    if options.weights:
        refuse_scratch(options, but=("positions",))
    registers = isinstance(options, Dinov2Registers)
    return hf_shape(as_hf(options), channels, image_size, "dinov2_with_registers" if registers else "dinov2")


@attrs.frozen
class IbotHead(DinoHead):
    """The DINO head on patch tokens, with the lengths of the prototypes trained as in DINOv2."""

    train_magnitude: bool = option(True, "train the length of each prototype (DINOv2) or keep it at 1 (DINO)")


@hookimpl
def dinomx_heads():
    yield Head("ibot", IbotHead, "dinomx_dinov1.head:DinoHead", shape=head_shape)


@hookimpl
def dinomx_losses():
    yield Loss("ibot", Ibot, "dinomx_dinov2.ibot:IbotLoss", requests=ibot_requests)
    yield Loss("koleo", Koleo, "dinomx_dinov2.koleo:KoleoLoss", requests=koleo_requests, check=check_koleo)


@hookimpl
def dinomx_targets():
    yield Target("sinkhorn-knopp", SinkhornKnopp, "dinomx_dinov2.sinkhorn:SinkhornTarget")


@hookimpl
def dinomx_maskings():
    yield Masking(
        "blocks", Blocks, "dinomx_dinov2.masks:BlockMasking", view=lambda options: options.view, check=check_blocks
    )


@hookimpl
def dinomx_backbones():
    build = "dinomx_dinov2.backbone:build_dinov2"
    yield Backbone("dinov2", Dinov2, build, shape=dinov2_shape, from_weights=from_weights)
    yield Backbone("dinov2-registers", Dinov2Registers, build, shape=dinov2_shape, from_weights=from_weights)


@hookimpl
def dinomx_recipes():
    for name, summary in (
        ("dinov2", "DINOv2 ViT-L/16, the short schedule of ImageNet-1k"),
        ("dinov2-long", "DINOv2 ViT-L/14, the long schedule of the released models"),
        ("dinov2-small", "DINOv2 for small images, small data and a CPU or one GPU"),
        ("dinov2-continue", "continued DINOv2 pretraining from released weights"),
    ):
        yield Recipe(name, f"dinomx_dinov2:recipes/{name}.toml", summary)
