"""Declarations: MONAI's vision transformer."""

import math
from collections.abc import Iterable, Iterator
from typing import Literal

import attrs

from dinomx_core import Backbone, BackboneShape, Draft, below_one, hookimpl, not_negative, option, positive
from dinomx_core.declare.layout import Layout

DINOMX_API = 1

LAYOUT = Layout(
    "model.blocks",
    ("model.patch_embedding.", "model.cls_token", "mask_token"),
    {
        "query": ("attn.to_q",),
        "key": ("attn.to_k",),
        "value": ("attn.to_v",),
        "output": ("attn.out_proj",),
        "mlp": ("mlp.linear1", "mlp.linear2"),
        "norm": ("norm1", "norm2"),
    },
    mlp="mlp",
)
AXES = 2  # of an image; sines and cosines of each


@attrs.frozen
class MonaiViT:
    """A vision transformer from scratch on `monai.networks.nets.ViT` in two dimensions, any image size and channel count."""

    width: int = option(384, "features of a token (MONAI: hidden_size)", check=positive)
    depth: int = option(12, "blocks (num_layers)", check=positive)
    heads: int = option(6, "attention heads of a block (num_heads)", check=positive)
    mlp_ratio: float = option(4.0, "hidden width of a block's MLP (mlp_dim) over `width`", check=positive)
    patch_size: int = option(16, "side of a patch in pixels", check=positive)
    image_size: int = option(
        0, "side in pixels that the position grid is made for; 0: the global crops'", check=not_negative
    )
    positions: Literal["learnable", "sincos"] = option(
        "learnable", "position table: learnt, or of sines and cosines that stay as they are (pos_embed_type)"
    )
    class_token: bool = option(True, "a class token; without one an image is known by the mean of its patches")
    mask_token: bool = option(False, "a learnt token for masked patches")
    init_std: float = option(
        0.0,
        "standard deviation of the initial weights, class token and learnt positions; 0: MONAI's own; narrow models learn faster with "
        "about 1 / sqrt(width)",
        check=not_negative,
    )
    qkv_bias: bool = option(False, "biases on query, key and value")
    dropout: float = option(
        0.0,
        "dropout of patches, attention weights and what both branches of a block give (dropout_rate)",
        check=below_one,
    )


def mlp_width(options: MonaiViT) -> int:
    """Hidden features of a block's MLP."""
    return round(options.width * options.mlp_ratio)


def tensors_of(options: MonaiViT, channels: int, image_size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of all parameters."""
    d, p, hidden = options.width, options.patch_size, mlp_width(options)
    before = "model.patch_embedding."
    yield f"{before}patch_embeddings.weight", (d, channels, p, p)
    yield f"{before}patch_embeddings.bias", (d,)
    if options.positions == "learnable":
        yield f"{before}position_embeddings", (1, ((options.image_size or image_size) // p) ** 2, d)
    if options.class_token:
        yield "model.cls_token", (1, 1, d)
    if options.mask_token:
        yield "mask_token", (1, 1, d)
    for number in range(options.depth):
        block = f"{LAYOUT.blocks}.{number}."
        for name in ("norm1", "norm2"):
            yield f"{block}{name}.weight", (d,)
            yield f"{block}{name}.bias", (d,)
        for name in ("to_q", "to_k", "to_v", "out_proj"):
            yield f"{block}attn.{name}.weight", (d, d)
            if options.qkv_bias or name == "out_proj":
                yield f"{block}attn.{name}.bias", (d,)
        for name, inputs, outputs in (("linear1", d, hidden), ("linear2", hidden, d)):
            yield f"{block}mlp.{name}.weight", (outputs, inputs)
            yield f"{block}mlp.{name}.bias", (outputs,)
    yield "model.norm.weight", (d,)
    yield "model.norm.bias", (d,)


def shape(options: MonaiViT, channels: int, image_size: int) -> BackboneShape:
    """Sizes, and all parameters by name."""
    tensors = dict(tensors_of(options, channels, image_size))
    return BackboneShape(
        options.width, options.depth, options.heads, mlp_width(options), options.patch_size, channels,
        int(options.class_token), sum(map(math.prod, tensors.values())), masks=options.mask_token, layout=LAYOUT, tensors=tensors,
    )  # fmt: skip


def check(options: MonaiViT, draft: Draft) -> list[tuple[str, str]]:
    """Heads divide the width, so do sines and cosines; the position grid is a whole number of patches."""
    problems = []
    if options.width % options.heads:
        problems.append(("heads", f"width {options.width} does not divide over {options.heads} heads"))
    if options.positions == "sincos" and options.width % (2 * AXES):
        problems.append(("positions", f'"sincos" needs a width that {2 * AXES} divides, and it is {options.width}'))
    if options.image_size % options.patch_size:
        problems.append(("image_size", f"{options.image_size} is not a multiple of patch_size {options.patch_size}"))
    if mlp_width(options) < 1:
        problems.append(("mlp_ratio", f"{options.mlp_ratio} leaves the MLP no hidden feature"))
    return problems


@hookimpl
def dinomx_backbones() -> Iterable[Backbone]:
    yield Backbone("monai-vit", MonaiViT, "dinomx_monai_vit.vit:MonaiBackbone", shape=shape, check=check)
