"""DINOv3's ConvNeXt on transformers' model."""

from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

from dinomx_core import BackboneShape
from dinomx_core.builtin.weights import find_weights, licence
from dinomx_core.training.backbone import Backbone, Start
from dinomx_core.training.flow import Hidden, Tokens
from dinomx_core.training.huggingface import HuggingFaceBackbone
from dinomx_dinov3 import convnext


class ConvNextBackbone(HuggingFaceBackbone):
    """Maps (B, C, H, W) go from stage to stage; the last one's positions are the patches."""

    norm_path = "layer_norm"

    def __init__(self, model: DINOv3ConvNextModel):
        nn.Module.__init__(self)
        self.model, self.has_cls, self.prefix, self.arguments = model, True, 1, {}
        self.start = None
        config = model.config
        self.width, self.patch_size = config.hidden_sizes[-1], convnext.stride_of(config.to_dict())
        self.layout = convnext.layout_of(config.depths)
        self.roles = self.layout.roles

    def embed(self, pixels: Tensor, mask: Tensor | None = None) -> Hidden:
        """The pixels themselves: the stem is part of the first stage."""
        assert mask is None, "the plan lets no masks through without a mask token"
        return Hidden(pixels, 0, self.grid(pixels))

    def finish(self, hidden: Hidden) -> Tokens:
        """As the model's last_hidden_state: the mean of the last map and its positions, normed."""
        x = hidden.x.flatten(2).transpose(1, 2)
        x = self.model.layer_norm(torch.cat([x.mean(1, keepdim=True), x], 1))
        return Tokens(x[:, 0], x[:, 1:1], x[:, 1:], hidden.grid)

    def is_patch_embedding(self, name: str) -> bool:
        """The stem's convolution."""
        return name.startswith("model.model.stages.0.downsample_layers.0.")


def build_convnext(options: "convnext.ConvNext", shape: BackboneShape, image_size: int) -> Backbone:
    """The adapter around a freshly initialised model; its `warm_start` takes the weights."""
    known = convnext.config_of(options, shape.channels)
    config = DINOv3ConvNextConfig.from_dict({**known, "image_size": image_size})
    backbone = ConvNextBackbone(DINOv3ConvNextModel(config))
    backbone.component = "dinov3-convnext"
    backbone.options = attrs.evolve(
        options, weights="", revision="", other_channels="refuse", widths=config.hidden_sizes, depths=config.depths,
        layer_norm_eps=config.layer_norm_eps,
    )  # fmt: skip
    if options.weights:
        backbone.start = partial(take_weights, backbone, options, shape.channels)
    return backbone


def take_weights(backbone: ConvNextBackbone, options: "convnext.ConvNext", channels: int) -> Start:
    """Load what `options.weights` names. Raises DataError unless all tensors fit."""
    folder = find_weights(options.weights, options.revision)
    theirs: Any = DINOv3ConvNextConfig.from_pretrained(folder).num_channels
    text = backbone.take(folder, (), None if theirs == channels else theirs)
    hub = not Path(options.weights).expanduser().exists()
    return Start(options.weights if hub else folder.name, text, licence(folder), hub)
