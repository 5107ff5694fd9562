"""Checkpoints in the layout of the reference codes and of timm: DINO, DINOv2 and DINOv3, their weights under the names of
transformers' models. Names and shapes alone, without torch."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from dinomx_core.declare.facts import HeadShape
from dinomx_core.errors import DataError, OtherFamily

ROOTS = ("teacher", "model", "state_dict", "model_state_dict", "student")  # tables that hold a network, best first
WRAPPERS = re.compile(r"(?<![^.])(module|_orig_mod|_fsdp_wrapped_module)\.")  # parallel, compiled and sharded modules
HEADS = {"head.": "dino", "dino_head.": "dino", "ibot_head.": "ibot"}
CHUNKED = re.compile(r"^blocks\.\d+\.(\d+)\.")
BLOCK = re.compile(r"^blocks\.(\d+)\.(.+)$")
# What is not a weight, or says what the model does anyhow: rotary periods, masks of the key's bias, which is none.
NOT_WEIGHTS = re.compile(r"(^|\.)(periods|bias_mask|k_bias|relative_position_index)$")
HEAD_WIDTH = 64  # features of an attention head in every released ViT but DINOv3's largest


@attrs.frozen
class Move:
    """One tensor of ours: which of theirs it is, which of so many equal parts along the first dimension, whether it has one more
    dimension in front, and whether a row of zeros comes first (the class token's, where theirs has no position)."""

    ours: str
    theirs: str
    part: int = 0
    parts: int = 1
    wrapped: bool = False
    zero_row: bool = False


@attrs.frozen
class Reference:
    """A checkpoint understood: model type and config of transformers, where each tensor comes from, the heads beside it (label ->
    tensor name -> name in the checkpoint) and their sizes, and what is not used."""

    type: str
    config: dict[str, Any]
    moves: tuple[Move, ...]
    heads: dict[str, dict[str, str]]
    beside: dict[str, HeadShape]
    unused: tuple[str, ...]


def network_of(tree: Any, is_tensor: Any) -> dict[str, Any]:
    """The tensors of the network in a checkpoint's nested tables, by their names in the reference code: the teacher's where there
    are two. Raises DataError (key "weights") when there are none."""
    table = tree if isinstance(tree, Mapping) else {}
    for _ in ROOTS:  # a table may hold itself
        if any(is_tensor(value) for value in table.values()):
            break
        table = next((table[root] for root in ROOTS if isinstance(table.get(root), Mapping)), table)
    found = {WRAPPERS.sub("", str(name)): value for name, value in table.items() if is_tensor(value)}
    if not found:
        raise DataError(f"no network in it; it holds: {', '.join(map(str, list(table)[:8])) or 'nothing'}", "weights")
    if any(name.startswith("teacher.") for name in found):
        found = {name[8:]: value for name, value in found.items() if name.startswith("teacher.")}
    return {CHUNKED.sub(r"blocks.\1.", name.removeprefix("backbone.")): value for name, value in found.items()}


def understand(shapes: Mapping[str, tuple[int, ...]], heads: int) -> Reference:
    """Tell from names and shapes which model it is. `heads`: attention heads, which they do not show; 0: of 64 features each.

    Raises OtherFamily (key "weights") for a layout that is not known, DataError (key "weights" or "heads") for a part that is not.
    """
    if "patch_embed.proj.weight" not in shapes or "cls_token" not in shapes:
        some = ", ".join(list(shapes)[:4])
        raise OtherFamily(f"not the layout of DINO, DINOv2, DINOv3 or timm; it holds {some}, ...", "weights")
    width, channels, patch, _ = shapes["patch_embed.proj.weight"]
    if min(width, channels, patch) < 1:
        raise ValueError(f"a patch projection of {width} x {channels} x {patch}")
    depth = 1 + max((int(match[1]) for name in shapes if (match := BLOCK.match(name))), default=-1)
    registers = next(
        (shapes[name][1] for name in ("register_tokens", "storage_tokens", "reg_token") if name in shapes), 0
    )
    scaled = any(name.endswith(("ls1.gamma", ".gamma_1")) for name in shapes)
    kind = "dinov3_vit" if "pos_embed" not in shapes else "vit" if not scaled else "dinov2"
    kind = "dinov2_with_registers" if kind == "dinov2" and registers else kind
    if "cls_norm.weight" in shapes:
        raise DataError(
            "class token and patches have norms of their own, which no model of transformers has", "weights"
        )
    if kind == "vit" and registers:
        raise DataError("registers without layer scale: no model of transformers has them", "weights")
    config: dict[str, Any] = {
        "hidden_size": width, "num_hidden_layers": depth, "patch_size": patch, "num_channels": channels,
        "num_attention_heads": heads or _heads(shapes, width, depth), "layer_norm_eps": 1e-5 if kind == "dinov3_vit" else 1e-6,
    }  # fmt: skip
    if kind == "dinov3_vit":
        config.update(_dinov3(shapes, registers))
    else:
        rows = shapes["pos_embed"][1]
        if not {round(rows**0.5) ** 2 - rows, round((rows - 1) ** 0.5) ** 2 - rows + 1} & {0}:
            raise DataError(
                f"a position grid of {rows} rows is no square; transformers' models have squares", "weights"
            )
        side = round(rows**0.5) if round(rows**0.5) ** 2 == rows else round((rows - 1) ** 0.5)
        config.update(image_size=side * patch, qkv_bias="blocks.0.attn.qkv.bias" in shapes)
        swiglu = "blocks.0.mlp.w12.weight" in shapes or packed(shapes, "blocks.0.")
        hidden = 4 * width if swiglu else shapes["blocks.0.mlp.fc1.weight"][0]
        if kind == "vit":
            config["intermediate_size"] = hidden
        else:
            config.update(mlp_ratio=round(hidden / width), use_swiglu_ffn=swiglu, layerscale_value=1.0)
            if registers:
                config["num_register_tokens"] = registers
    moves = tuple(_moves(shapes, kind, depth))
    found = _heads_beside(shapes)
    used = {move.theirs for move in moves}.union(*(names.values() for names in found.values()))
    unused = tuple(name for name in shapes if name not in used and not NOT_WEIGHTS.search(name))
    beside = {
        label: head_shape({ours: shapes[theirs] for ours, theirs in head.items()}) for label, head in found.items()
    }
    return Reference(kind, config, moves, found, beside, unused)


def head_shape(tensors: Mapping[str, tuple[int, ...]]) -> HeadShape:
    """Sizes of a projection head from its tensors."""
    last = tensors.get("last_layer.weight", tensors.get("last_layer.weight_v", (0,)))
    return HeadShape(last[0], sum(map(math.prod, tensors.values())))


def _heads(shapes: Mapping[str, tuple[int, ...]], width: int, depth: int) -> int:
    periods = next((shape for name, shape in shapes.items() if name.endswith("rope_embed.periods")), None)
    head_width = 4 * periods[0] if periods else HEAD_WIDTH
    if width % head_width:
        raise DataError(
            f"the checkpoint does not tell how many attention heads share its width of {width}; say so", "heads"
        )
    return width // head_width


def _dinov3(shapes: Mapping[str, tuple[int, ...]], registers: int) -> dict[str, Any]:
    first = "blocks.0."
    gated = f"{first}mlp.w1.weight" in shapes or f"{first}mlp.fc1_g.weight" in shapes
    hidden = next(shapes[first + name][0] for name in MLP_IN if first + name in shapes)
    bias = f"{first}attn.qkv.bias" in shapes or f"{first}attn.q_bias" in shapes
    return {
        "num_register_tokens": registers, "intermediate_size": hidden, "use_gated_mlp": gated,
        "hidden_act": "silu" if gated else "gelu", "query_bias": bias, "key_bias": False, "value_bias": bias,
        "proj_bias": f"{first}attn.proj.bias" in shapes, "image_size": 224,
        "mlp_bias": any(f"{first}mlp.{name}.bias" in shapes for name in ("fc1", "w1", "fc1_g")),
    }  # fmt: skip


MLP_IN = ("mlp.fc1.weight", "mlp.w1.weight", "mlp.fc1_g.weight")
TOP = {
    "cls_token": "embeddings.cls_token",
    "mask_token": "embeddings.mask_token",
    "pos_embed": "embeddings.position_embeddings",
    "register_tokens": "embeddings.register_tokens",
    "storage_tokens": "embeddings.register_tokens",
    "reg_token": "embeddings.register_tokens",
    "norm.weight": "{norm}.weight",
    "norm.bias": "{norm}.bias",
    "patch_embed.proj.weight": "{patches}.weight",
    "patch_embed.proj.bias": "{patches}.bias",
}
PLAIN = {"layernorm_before": "norm1", "layernorm_after": "norm2", "attention.o_proj": "attn.proj", "mlp.fc1": "mlp.fc1",
         "mlp.fc2": "mlp.fc2"}  # fmt: skip
BRANCHES = {"norm1": "norm1", "norm2": "norm2", "attention.o_proj": "attn.proj"}


def _moves(shapes: Mapping[str, tuple[int, ...]], kind: str, depth: int) -> Iterator[Move]:
    """Each tensor of transformers' model and where it is found."""
    path = {"vit": "layers", "dinov3_vit": "model.layer"}.get(kind, "encoder.layer")
    words = {
        "norm": "norm" if kind == "dinov3_vit" else "layernorm",
        "patches": "embeddings.patch_embeddings" + ("" if kind == "dinov3_vit" else ".projection"),
    }
    for theirs, ours in TOP.items():
        if theirs in shapes:
            wrapped = (kind, theirs) == ("dinov3_vit", "mask_token") and len(shapes[theirs]) == 2
            whole = theirs == "pos_embed" and round(shapes[theirs][1] ** 0.5) ** 2 == shapes[theirs][1]
            yield Move(ours.format(**words), theirs, wrapped=wrapped, zero_row=whole)
    for number in range(depth):
        for ours, theirs, part, parts in _block(shapes, kind, f"blocks.{number}."):
            yield Move(f"{path}.{number}.{ours}", f"blocks.{number}.{theirs}", part, parts)


def _block(shapes: Mapping[str, tuple[int, ...]], kind: str, at: str) -> Iterator[tuple[str, str, int, int]]:
    for leaf in ("weight", "bias"):
        for part, letter in enumerate("qkv"):
            if f"{at}attn.qkv.{leaf}" in shapes and not (kind == "dinov3_vit" and (letter, leaf) == ("k", "bias")):
                yield f"attention.{letter}_proj.{leaf}", f"attn.qkv.{leaf}", part, 3
        for ours, theirs in (PLAIN if kind == "vit" else BRANCHES | _mlp(shapes, kind, at)).items():
            if f"{at}{theirs}.{leaf}" in shapes:
                yield f"{ours}.{leaf}", f"{theirs}.{leaf}", 0, 1
        both = "mlp.fc1" if packed(shapes, at) else "mlp.w12"  # gate and value in one
        if kind.startswith("dinov2") and f"{at}{both}.{leaf}" in shapes:
            for part, ours in enumerate(("gate_proj", "up_proj")):
                yield f"mlp.{ours}.{leaf}", f"{both}.{leaf}", part, 2
    for letter in "qv":  # as timm keeps biases where keys have none
        if f"{at}attn.{letter}_bias" in shapes:
            yield f"attention.{letter}_proj.bias", f"attn.{letter}_bias", 0, 1
    for number in (1, 2):
        for theirs in (f"ls{number}.gamma", f"gamma_{number}"):
            if at + theirs in shapes:
                yield f"layer_scale{number}.lambda1", theirs, 0, 1


def _mlp(shapes: Mapping[str, tuple[int, ...]], kind: str, at: str) -> dict[str, str]:
    if kind != "dinov3_vit":
        if packed(shapes, at):
            return {"mlp.down_proj": "mlp.fc2"}
        return {"mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2", "mlp.down_proj": "mlp.w3"}
    if f"{at}mlp.w1.weight" in shapes:
        return {"mlp.gate_proj": "mlp.w1", "mlp.up_proj": "mlp.w2", "mlp.down_proj": "mlp.w3"}
    if f"{at}mlp.fc1_g.weight" in shapes:
        return {"mlp.gate_proj": "mlp.fc1_g", "mlp.up_proj": "mlp.fc1_x", "mlp.down_proj": "mlp.fc2"}
    return {"mlp.up_proj": "mlp.fc1", "mlp.down_proj": "mlp.fc2"}


def packed(shapes: Mapping[str, tuple[int, ...]], at: str) -> bool:
    """Whether a block's first linear layer holds gate and value of a SwiGLU, as timm has it: twice what the second takes."""
    first, second = shapes.get(f"{at}mlp.fc1.weight"), shapes.get(f"{at}mlp.fc2.weight")
    return bool(first and second and first[0] == 2 * second[1])


def _heads_beside(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, dict[str, str]]:
    """Projection heads by label; a classifier ("head.weight") is none."""
    result: dict[str, dict[str, str]] = {}
    for name in shapes:
        for prefix, label in HEADS.items():
            if name.startswith(prefix) and any(other.startswith(f"{prefix}last_layer.") for other in shapes):
                rest = name[len(prefix) :]
                # The reference's head of one layer has it bare, not in a sequence.
                rest = re.sub(r"^mlp\.(weight|bias)$", r"mlp.0.\1", rest)
                rest = re.sub(r"^last_layer\.parametrizations\.weight\.original([01])$",
                              lambda m: f"last_layer.weight_{'gv'[int(m[1])]}", rest)  # fmt: skip
                result.setdefault(label, {})[rest] = name
    return result
