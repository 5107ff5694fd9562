"""The `hf` backbone: a transformers vision model behind the adapter of its token layout."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

from dinomx_core.builtin.families import Hf, Known, resolve
from dinomx_core.builtin.family_tensors import prefix_of
from dinomx_core.builtin.reference import Move, Reference, network_of
from dinomx_core.builtin.weights import HEADS, find_weights, licence
from dinomx_core.declare.facts import BackboneShape
from dinomx_core.errors import DataError
from dinomx_core.training.backbone import Start
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
EXACT = (torch.float32, torch.float16, torch.bfloat16)  # what float32 holds without rounding
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
    if known.family.pooler:
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
    backbone = ADAPTERS[known.type](model, known.family.cls, prefix_of(known), arguments)
    backbone.component = "hf"
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
        linear = torch.linspace(0, options.drop_path, depth, device="cpu").tolist()
        backbone.drop_path(linear if options.drop_path_rule == "linear" else [options.drop_path] * depth)
    if isinstance(backbone, Dinov2Backbone):
        backbone.offset_positions = options.positions == "offset"
        for block in backbone.blocks:
            block.subset = options.drop_path_subset
    return backbone


def take_weights(backbone: HuggingFaceBackbone, options: Hf, known: Known, channels: int) -> Start:
    """Load what `options.weights` names. Raises DataError unless all tensors fit but those that may be missing."""
    folder = find_weights(options.weights, options.revision)
    theirs = known.config["num_channels"]
    if known.reference:
        state, heads = read_tensors(folder, known.reference)
        text = backbone.take_tensors(state, known.reference.unused, folder, options.missing)
        return Start(folder.name, text, heads=heads)
    text = backbone.take(folder, options.missing, None if theirs == channels else theirs)
    hub = not Path(options.weights).expanduser().exists()
    heads = split_heads(load_file(folder / HEADS)) if not hub and (folder / HEADS).is_file() else {}
    return Start(options.weights if hub else folder.name, text, licence(folder), hub, heads)


def read_tensors(file: Path, how: Reference) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """Tensors of a reference checkpoint under transformers' names, and those of its heads by label. Raises DataError."""
    try:
        if file.suffix == ".safetensors":
            tree = load_file(file)
        else:
            with torch.serialization.safe_globals([argparse.Namespace]):  # DINO keeps its arguments so
                tree = torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # the unpickler raises errors of many kinds, and advises to let the file run code
        message = (
            "cannot be read as weights alone: it holds other objects, which reading would run as code, or is damaged"
        )
        raise DataError(f"{file}: {message}; save its tensors in a file of their own", "weights") from None
    found = network_of(tree, lambda value: isinstance(value, Tensor))
    for name in {move.theirs for move in how.moves}:
        if found[name].dtype not in EXACT:
            raise DataError(
                f"{file}: {name} is {found[name].dtype}, which float32 would round; convert it first", "weights"
            )
        if not bool(torch.isfinite(found[name]).all()):
            raise DataError(f"{file}: {name} holds numbers that are not finite", "weights")
    state = {move.ours: moved(found[move.theirs].float(), move) for move in how.moves}
    heads = {label: {ours: found[theirs] for ours, theirs in names.items()} for label, names in how.heads.items()}
    return state, heads


def moved(tensor: Tensor, move: Move) -> Tensor:
    """One tensor of the reference as transformers has it."""
    part = tensor.chunk(move.parts)[move.part]
    part = part.unsqueeze(0) if move.wrapped else part
    return torch.cat([torch.zeros_like(part[:, :1]), part], 1) if move.zero_row else part


def split_heads(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """`heads.safetensors` of a converted checkpoint: tensors named "label.name", by label."""
    heads: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        label, _, rest = name.partition(".")
        heads.setdefault(label, {})[rest] = tensor
    return heads
