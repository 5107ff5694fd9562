"""Small models that look at brightness: attention goes where the image is bright, features say how bright it is."""

import torch
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTModel,
)

PATCH, SEEN = 8, 3  # side of a patch; the feature that is a patch's brightness: rotary positions hardly turn it
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 16,
    "image_size": 32,
    "patch_size": PATCH,
}
MADE = {
    "vit": lambda c: ViTModel(ViTConfig(**SIZES, num_channels=c), add_pooling_layer=False),
    "dinov2": lambda c: Dinov2Model(Dinov2Config(**SIZES, num_channels=c)),
    "registers": lambda c: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SIZES, num_register_tokens=3, num_channels=c)),
    "dinov3": lambda c: DINOv3ViTModel(DINOv3ViTConfig(**SIZES, num_register_tokens=2, rope_theta=1e8, num_channels=c)),
    "siglip": lambda c: SiglipVisionModel(SiglipVisionConfig(**SIZES, num_channels=c)),
}  # fmt: skip


def save_bright(folder, family, channels=3):
    """Write such a model."""
    model = MADE[family](channels)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            tensor.fill_(float("norm" in name and name.endswith("weight")))
            if tensor.ndim == 4:  # a patch's mean over pixels and channels
                tensor[SEEN] = 1 / tensor[0].numel()
            elif "patch_embedding" in name:
                tensor[1] = 1.0
            elif name.endswith(("cls_token", "register_tokens")):
                tensor[..., 2] = 1.0
            elif name.endswith(("q_proj.bias", "query.bias")):
                tensor[SEEN] = 20.0
            elif name.endswith(("k_proj.weight", "key.weight")):
                tensor.copy_(torch.eye(16))
    model.save_pretrained(folder)
    return folder
