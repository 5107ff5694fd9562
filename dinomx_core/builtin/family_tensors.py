"""Tokens, MLP widths, and names and sizes of all parameters of the families of Hugging Face models, from their configs alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dinomx_core.declare.layout import CLIP

if TYPE_CHECKING:
    from dinomx_core.builtin.families import Known

Named = Iterator[tuple[str, tuple[int, ...]]]


def prefix_of(known: Known) -> int:
    """Tokens before the patches."""
    return known.family.cls + known.family.extra + known.config.get("num_register_tokens", 0)


def mlp_width(known: Known) -> int:
    """Hidden features of a block's MLP."""
    c = known.config
    hidden = int(c["hidden_size"] * c["mlp_ratio"]) if "mlp_ratio" in known.family.defaults else c["intermediate_size"]
    return (int(hidden * 2 / 3) + 7) // 8 * 8 if c.get("use_swiglu_ffn") else hidden


def tensors_of(known: Known, channels: int, mask_token: bool) -> dict[str, tuple[int, ...]]:
    """Names and shapes of every parameter of the adapter around the model without pooler."""
    layout, block = known.family.layout, dict(_block(known))
    result = dict(_before(known, channels, mask_token or known.family.mask == "always"))
    for index in range(known.config["num_hidden_layers"]):
        result.update({f"{layout.blocks}.{index}.{name}": shape for name, shape in block.items()})
    d, c = known.config["hidden_size"], known.config
    if not (known.type == "beit" and c.get("use_mean_pooling", True)):
        result.update(_norm(f"model.{known.family.norm}", d))
    return result


def _linear(name: str, inputs: int, outputs: int, bias: bool = True) -> Named:
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)


def _norm(name: str, width: int) -> Named:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _before(known: Known, channels: int, mask_token: bool) -> Named:
    c, kind, family = known.config, known.type, known.family
    d, p, grid = c["hidden_size"], c["patch_size"], c["image_size"] // c["patch_size"]
    rows = grid**2 + family.positioned
    inside = "model.embeddings."
    if family.layout == CLIP:
        if mask_token:
            yield "mask_token", (1, 1, d)
        if family.cls:
            yield f"{inside}class_embedding", (d,)
            yield from _norm("model.pre_layrnorm", d)
        yield f"{inside}patch_embedding.weight", (d, channels, p, p)
        if not family.cls:
            yield f"{inside}patch_embedding.bias", (d,)
        yield f"{inside}position_embedding.weight", (rows, d)
        return
    if family.cls:
        yield f"{inside}cls_token", (1, 1, d)
    if mask_token:
        yield f"{inside}mask_token", (1, d) if kind.startswith("dinov2") else (1, 1, d)
    if family.extra:
        yield f"{inside}distillation_token", (1, 1, d)
    if "num_register_tokens" in family.defaults:
        yield f"{inside}register_tokens", (1, c["num_register_tokens"], d)
    if c.get("use_absolute_position_embeddings") if kind == "beit" else family.table:
        yield f"{inside}position_embeddings", (1, rows, d)
    projection = f"{inside}patch_embeddings" + ("" if family.rotary else ".projection")
    yield f"{projection}.weight", (d, channels, p, p)
    yield f"{projection}.bias", (d,)
    if c.get("use_shared_relative_position_bias"):
        yield "model.shared_position_bias.relative_position_bias_table", _relative(known)


def _relative(known: Known) -> tuple[int, int]:
    grid = known.config["image_size"] // known.config["patch_size"]
    return (2 * grid - 1) ** 2 + 3, known.config["num_attention_heads"]


def _biased(known: Known) -> dict[str, bool]:
    """Which of a block's attention layers have a bias."""
    c, roles = known.config, ("query", "key", "value", "output")
    if known.type == "beit":
        return {role: role != "key" for role in roles}
    if known.type == "dinov3_vit":
        return {role: c.get(f"{'proj' if role == 'output' else role}_bias", True) for role in roles}
    return {role: c.get("qkv_bias", True) or role == "output" for role in roles}


def _block(known: Known) -> Named:
    c, kind, family = known.config, known.type, known.family
    d, h, roles = c["hidden_size"], mlp_width(known), known.family.layout.roles
    for role, bias in _biased(known).items():
        yield from _linear(roles[role][0], d, d, bias)
    for name in roles["norm"]:
        yield from _norm(name, d)
    if c.get("use_swiglu_ffn") or c.get("use_gated_mlp"):
        names = {"mlp.gate_proj": (d, h), "mlp.up_proj": (d, h), "mlp.down_proj": (h, d)}
    elif family.rotary:
        names = {"mlp.up_proj": (d, h), "mlp.down_proj": (h, d)}
    else:
        names = {"mlp.fc1": (d, h), "mlp.fc2": (h, d)}
    for name, (inputs, outputs) in names.items():
        yield from _linear(name, inputs, outputs, c.get("mlp_bias", True))
    if family.layer_scale:
        yield "layer_scale1.lambda1", (d,)
        yield "layer_scale2.lambda1", (d,)
    if kind == "beit" and c["layer_scale_init_value"] > 0:
        yield "lambda_1", (d,)
        yield "lambda_2", (d,)
    if c.get("use_relative_position_bias"):
        yield "relative_position_bias.relative_position_bias_table", _relative(known)
