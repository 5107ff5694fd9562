"""Weight names: DINO's reference code <-> this plugin's backbone and head."""

import re

from torch import Tensor

EXACT = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "mask_token": "embeddings.mask_token",
}
PREFIXES = {"patch_embed.proj.": "embeddings.patch_embeddings.projection.", "norm.": "layernorm."}
IN_BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.o_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
BLOCK = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias)")


def backbone_from_reference(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Reference ViT tensors (`blocks.0.attn.qkv.weight`, …) under the names of `transformers.ViTModel`.

    Query, key and value are the thirds of `qkv`. Raises KeyError for a name that has no place.
    """
    result = {}
    for name, tensor in state.items():
        if name in EXACT:
            result[EXACT[name]] = tensor
        elif prefix := next((p for p in PREFIXES if name.startswith(p)), None):
            result[PREFIXES[prefix] + name[len(prefix) :]] = tensor
        elif match := BLOCK.fullmatch(name):
            number, part, leaf = match.groups()
            if part == "attn.qkv":
                for letter, third in zip("qkv", tensor.chunk(3)):
                    result[f"layers.{number}.attention.{letter}_proj.{leaf}"] = third
            else:
                result[f"layers.{number}.{IN_BLOCK[part]}.{leaf}"] = tensor
        else:
            raise KeyError(name)
    return result
