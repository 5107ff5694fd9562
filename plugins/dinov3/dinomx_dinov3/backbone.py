"""DINOv3's vision transformer, as the `hf` backbone builds it."""

from dinomx_core import BackboneShape
from dinomx_core.builtin.hf import build_hf
from dinomx_core.training.huggingface import HuggingFaceBackbone
from dinomx_dinov3 import plugin


def build_dinov3(options: "plugin.Dinov3ViT", shape: BackboneShape, image_size: int) -> HuggingFaceBackbone:
    """Class token, registers, patches; exported as a `DINOv3ViTModel`."""
    return build_hf(plugin.as_hf(options), shape, image_size)
