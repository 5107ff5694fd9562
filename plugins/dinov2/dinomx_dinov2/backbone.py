"""DINOv2's vision transformers, as the `hf` backbone builds them."""

from dinomx_core import BackboneShape
from dinomx_core.builtin.hf import build_hf
from dinomx_core.training.huggingface import HuggingFaceBackbone
from dinomx_dinov2 import plugin


def build_dinov2(options: "plugin.Dinov2", shape: BackboneShape, image_size: int) -> HuggingFaceBackbone:
    """Class token, registers if any, patches; exported as a `Dinov2Model` or `Dinov2WithRegistersModel`."""
    return build_hf(plugin.as_hf(options), shape, image_size)
