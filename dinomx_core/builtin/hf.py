"""The `hf` backbone: a transformers vision model behind the adapter of its token layout."""

from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch
import transformers

from dinomx_core.builtin.families import Hf, Known, cls_of, prefix_of, resolve
from dinomx_core.builtin.weights import find_weights, licence
from dinomx_core.declare.components import BackboneShape
from dinomx_core.errors import DataError
from dinomx_core.training.contracts import Start
from dinomx_core.training.huggingface import (
    BeitBackbone,
    ClipBackbone,
    Dinov2Backbone,
    Dinov3Backbone,
    HuggingFaceBackbone,
)

ADAPTERS: dict[str, type[HuggingFaceBackbone]] = {
    "vit": HuggingFaceBackbone,
    "deit": HuggingFaceBackbone,
    "ijepa": HuggingFaceBackbone,
    "beit": BeitBackbone,
    "dinov2": Dinov2Backbone,
    "dinov2_with_registers": Dinov2Backbone,
    "dinov3_vit": Dinov3Backbone,
    "clip_vision_model": ClipBackbone,
    "siglip_vision_model": ClipBackbone,
}
NOT_OPTIONS = ("transformers_version", "architectures", "dtype", "model_type", "_name_or_path")


def make_config(known: Known, options: Hf, channels: int) -> Any:
    """The transformers config that the options come to."""
    kind = getattr(transformers, known.family.config)
    if unknown := sorted(set(options.config) - {*kind().to_dict(), *known.family.defaults}):
        raise DataError(f"{known.type} has no {', '.join(unknown)}", "config")
    config = kind.from_dict(known.config)
    config.num_channels = channels
    if known.family.mask == "config":
        config.use_mask_token = options.mask_token
    if known.type == "siglip_vision_model":
        config.vision_use_head = False
    return config


def build_hf(options: Hf, shape: BackboneShape, image_size: int) -> HuggingFaceBackbone:
    """The adapter around a freshly initialised model; its `warm_start` takes the weights."""
    known = resolve(options, shape.channels, image_size)
    config = make_config(known, options, shape.channels)
    arguments: dict[str, Any] = {}
    if known.type in ("vit", "deit", "beit", "ijepa"):
        arguments["add_pooling_layer"] = False
    if known.family.mask == "argument":
        arguments["use_mask_token"] = options.mask_token
    try:
        model = getattr(transformers, known.family.model)(config, **arguments)
    except (KeyError, ValueError, TypeError) as error:
        where = options.weights or f"{known.type} from scratch"
        raise DataError(
            f"{where}: the config cannot be built: {error}", "weights" if options.weights else "config"
        ) from None
    backbone = ADAPTERS[known.type](model, cls_of(known), prefix_of(known), arguments)
    plain = {key: value for key, value in config.to_dict().items() if key not in NOT_OPTIONS}
    backbone.options = attrs.evolve(
        options, weights="", revision="", missing=[], other_channels="refuse", family=known.type, config=plain,
        width=0, depth=0, heads=0, patch_size=0,
    )  # fmt: skip
    if options.weights:
        backbone.start = partial(take_weights, backbone, options, known, shape.channels)
    if isinstance(backbone, ClipBackbone) and options.mask_token:
        backbone.add_mask_token()
    if options.drop_path:
        depth = len(backbone.blocks)
        linear = torch.linspace(0, options.drop_path, depth).tolist()
        backbone.drop_path(linear if options.drop_path_rule == "linear" else [options.drop_path] * depth)
    return backbone


def take_weights(backbone: HuggingFaceBackbone, options: Hf, known: Known, channels: int) -> Start:
    """Load what `options.weights` names. Raises DataError unless all tensors fit but those that may be missing."""
    folder = find_weights(options.weights, options.revision)
    theirs = known.config["num_channels"]
    text = backbone.take(folder, options.missing, None if theirs == channels else theirs)
    hub = not Path(options.weights).expanduser().is_dir()
    return Start(options.weights if hub else folder.name, text, licence(folder), hub)
