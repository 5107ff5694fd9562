"""Where a backbone keeps what, by the names of its parameters: what freezing, adapters and layer decay go by. Torch-free."""

import re
from collections.abc import Mapping

import attrs


@attrs.frozen
class Layout:
    """Names as `named_parameters()` gives them.

    blocks: path of the list of transformer blocks. before: beginnings of the names of parameters that act before the blocks.
    roles: modules within a block by what they do ("query", "key", "value", "output", "mlp", "norm", "scale"); those that a model
    does not have are left out of it. mlp: the one module within a block that holds all of its MLP, where there is one.
    """

    blocks: str
    before: tuple[str, ...]
    roles: Mapping[str, tuple[str, ...]]
    mlp: str = ""

    def layer_of(self, name: str, depth: int) -> int:
        """Depth of a parameter or module: 0 before the blocks, i + 1 block i, depth + 1 after them."""
        if found := re.match(rf"{re.escape(self.blocks)}\.(\d+)\.", f"{name}."):
            return int(found[1]) + 1
        return 0 if name.startswith(self.before) else depth + 1

    def modules(self, role: str, block: int) -> tuple[str, ...]:
        """Full names of a block's modules of a role."""
        return tuple(f"{self.blocks}.{block}.{name}" for name in self.roles.get(role, ()))


BEFORE = ("model.embeddings.", "model.pre_", "model.shared_", "mask_token")
VIT = Layout(
    "model.layers",
    BEFORE,
    {
        "query": ("attention.q_proj",),
        "key": ("attention.k_proj",),
        "value": ("attention.v_proj",),
        "output": ("attention.o_proj",),
        "mlp": ("mlp.fc1", "mlp.fc2"),
        "norm": ("layernorm_before", "layernorm_after"),
    },
    mlp="mlp",
)
DINOV2 = Layout(
    "model.encoder.layer",
    BEFORE,
    {
        **VIT.roles,
        "mlp": ("mlp.fc1", "mlp.fc2", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
        "norm": ("norm1", "norm2"),
        "scale": ("layer_scale1", "layer_scale2"),
    },
    mlp="mlp",
)
DINOV3 = attrs.evolve(DINOV2, blocks="model.model.layer")
CLIP = Layout(
    "model.encoder.layers",
    BEFORE,
    {
        "query": ("self_attn.q_proj",),
        "key": ("self_attn.k_proj",),
        "value": ("self_attn.v_proj",),
        "output": ("self_attn.out_proj",),
        "mlp": ("mlp.fc1", "mlp.fc2"),
        "norm": ("layer_norm1", "layer_norm2"),
    },
    mlp="mlp",
)
