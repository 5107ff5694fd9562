"""Tokens, MLP widths and exact parameter counts of the families of Hugging Face models, from their configs alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dinomx_core.builtin.families import Known


def prefix_of(known: Known) -> int:
    """Tokens before the patches."""
    return known.family.cls + known.family.extra + known.config.get("num_register_tokens", 0)


def mlp_width(known: Known) -> int:
    """Hidden features of a block's MLP."""
    c = known.config
    hidden = int(c["hidden_size"] * c["mlp_ratio"]) if "mlp_ratio" in known.family.defaults else c["intermediate_size"]
    return (int(hidden * 2 / 3) + 7) // 8 * 8 if c.get("use_swiglu_ffn") else hidden


def count_parameters(known: Known, channels: int, mask_token: bool) -> int:
    """The exact number of parameters of the model without pooler."""
    c, kind, family = known.config, known.type, known.family
    d, h, depth, p = c["hidden_size"], mlp_width(known), c["num_hidden_layers"], c["patch_size"]
    grid = c["image_size"] // p
    has_table = bool(c.get("use_absolute_position_embeddings")) if kind == "beit" else family.table
    table = (grid**2 + family.positioned) * has_table
    tokens = prefix_of(known) + table + (mask_token or family.mask == "always")
    embed = channels * p * p * d + (0 if kind == "clip_vision_model" else d) + tokens * d
    biases = {"beit": 3, "dinov3_vit": sum(c.get(f"{k}_bias", True) for k in ("query", "key", "value", "proj"))}.get(
        kind, 4 if c.get("qkv_bias", True) else 1
    )
    gated = c.get("use_swiglu_ffn") or c.get("use_gated_mlp")
    mlp = (3 * d * h + 2 * h + d) if gated else (2 * d * h + h + d)
    if not c.get("mlp_bias", True):
        mlp -= (2 * h + d) if gated else (h + d)
    scaled = family.layer_scale or (kind == "beit" and c["layer_scale_init_value"] > 0)
    bias_table = ((2 * grid - 1) ** 2 + 3) * c["num_attention_heads"] if kind == "beit" else 0
    block = (
        4 * d * d + biases * d + mlp + 4 * d + 2 * d * scaled + bias_table * bool(c.get("use_relative_position_bias"))
    )
    norms = {"clip_vision_model": 4 * d, "beit": 0 if c.get("use_mean_pooling", True) else 2 * d}.get(kind, 2 * d)
    return embed + depth * block + norms + bias_table * bool(c.get("use_shared_relative_position_bias"))
