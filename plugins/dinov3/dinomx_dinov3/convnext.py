"""Declarations: DINOv3's ConvNeXt."""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import attrs

from dinomx_core import BackboneShape, DataError, OtherFamily, below_one, option, positive
from dinomx_core.builtin import weights as files
from dinomx_core.declare.facts import Convolutions
from dinomx_core.declare.layout import Layout

TYPE = "dinov3_convnext"
STEM, KERNEL, EXPANSION = 4, 7, 4  # stride of the stem, side of a depthwise kernel, hidden width over width
# Floats kept for the backward pass a position and layer, in units of its width: its input and the norm's, both MLP products' inputs and
# the activation's, the scale's input.
KEPT = 4 + 2 * EXPANSION


@attrs.frozen
class ConvNext:
    """DINOv3's ConvNeXt on `transformers.DINOv3ConvNextModel`: positions of its last map as patches, no mask token.

    Stages take the place of blocks, the positions' mean that of the class token (Liu et al. 2022, Siméoni et al. 2025).
    """

    weights: str = option("", 'folder with config.json and model.safetensors, or a model id; "": from scratch')
    revision: str = option("", "branch, tag or commit of a model id")
    other_channels: Literal["refuse", "average"] = option(
        "refuse", "weights made for another number of channels: refuse them, or give each channel the mean of theirs"
    )
    widths: list[int] = option([96, 192, 384, 768], "features in each stage, from scratch", check=positive)
    depths: list[int] = option([3, 3, 9, 3], "layers in each stage, from scratch", check=positive)
    layer_scale: float = option(1e-6, "initial scale of each layer's branch, from scratch", check=positive)
    layer_norm_eps: float = option(1e-6, "epsilon of the layer norms, from scratch", check=positive)
    init_std: float = option(0.02, "standard deviation of the initial weights, from scratch", check=positive)
    drop_path: float = option(
        0.0,
        "probability that a layer's branch is skipped in training; grows from 0 at the first layer",
        check=below_one,
    )


def config_of(options: ConvNext, channels: int) -> dict[str, Any]:
    """The model's config. Raises OtherFamily for weights that are not a DINOv3 ConvNeXt, OtherChannels for those of other channels."""
    if not options.weights:
        if len(options.widths) != len(options.depths) or not options.widths:
            raise DataError(f"has {len(options.depths)} stages, widths has {len(options.widths)}", "depths")
        return {
            "hidden_sizes": options.widths, "depths": options.depths, "num_channels": channels,
            "layer_scale_init_value": options.layer_scale, "layer_norm_eps": options.layer_norm_eps,
            "initializer_range": options.init_std, "drop_path_rate": options.drop_path,
        }  # fmt: skip
    fresh = ConvNext()
    for name in ("widths", "depths", "layer_scale", "layer_norm_eps", "init_std"):
        if getattr(options, name) != getattr(fresh, name):
            raise DataError("is for a model from scratch; the weights bring their own", name)
    folder = files.find_weights(options.weights, options.revision, only_config=True)
    if folder.is_file():
        raise OtherFamily(f"{folder}: is a file; give a folder with config.json and model.safetensors", "weights")
    saved = files.read_json(folder / files.CONFIG)
    if (kind := saved.get("model_type")) != TYPE:
        raise OtherFamily(f'{folder}: holds a model of type "{kind}", not "{TYPE}"; take another backbone', "weights")
    config = {"hidden_sizes": [96, 192, 384, 768], "depths": [3, 3, 9, 3], "num_channels": 3, **saved}
    files.check_channels(folder, config["num_channels"], channels, options.other_channels)
    return {**config, "num_channels": channels, "drop_path_rate": options.drop_path}


def layout_of(depths: list[int]) -> Layout:
    """Stages as blocks; the stem belongs to the first."""
    layers = range(max(depths))
    return Layout(
        "model.model.stages",
        (),
        {
            "mlp": tuple(f"layers.{n}.pointwise_conv{part}" for n in layers for part in (1, 2)),
            "norm": tuple(f"layers.{n}.layer_norm" for n in layers),
        },
    )


def tensors_of(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of all parameters of the adapter around the model."""
    before = config["num_channels"]
    for stage, (width, depth) in enumerate(zip(config["hidden_sizes"], config["depths"])):
        inside = f"model.model.stages.{stage}"
        side, norm, conv = (STEM, 1, 0) if stage == 0 else (2, 0, 1)
        normed = width if stage == 0 else before
        yield f"{inside}.downsample_layers.{conv}.weight", (width, before, side, side)
        yield f"{inside}.downsample_layers.{conv}.bias", (width,)
        for leaf in ("weight", "bias"):
            yield f"{inside}.downsample_layers.{norm}.{leaf}", (normed,)
        for number in range(depth):
            layer, hidden = f"{inside}.layers.{number}", EXPANSION * width
            yield f"{layer}.gamma", (width,)
            yield f"{layer}.depthwise_conv.weight", (width, 1, KERNEL, KERNEL)
            yield f"{layer}.depthwise_conv.bias", (width,)
            yield f"{layer}.layer_norm.weight", (width,)
            yield f"{layer}.layer_norm.bias", (width,)
            yield f"{layer}.pointwise_conv1.weight", (hidden, width)
            yield f"{layer}.pointwise_conv1.bias", (hidden,)
            yield f"{layer}.pointwise_conv2.weight", (width, hidden)
            yield f"{layer}.pointwise_conv2.bias", (width,)
        before = width
    yield "model.layer_norm.weight", (before,)
    yield "model.layer_norm.bias", (before,)


def stride_of(config: dict[str, Any]) -> int:
    """Pixels from one position of the last map to the next."""
    return STEM * 2 ** (len(config["depths"]) - 1)


def costs_of(config: dict[str, Any]) -> Convolutions:
    """What a pixel costs: FLOPs of a forward pass, and floats that are kept of it."""
    flops, kept, before = 0.0, 0.0, config["num_channels"]
    for stage, (width, depth) in enumerate(zip(config["hidden_sizes"], config["depths"])):
        share = 1 / (STEM * 2**stage) ** 2  # of the pixels
        side = STEM if stage == 0 else 2
        layer = 2 * width * (KERNEL**2 + 2 * EXPANSION * width)
        flops += share * (2 * before * side**2 * width + depth * layer)
        kept += share * depth * KEPT * width
        before = width
    return Convolutions(flops, kept)


def check_tensors(folder: Path, wanted: dict[str, tuple[int, ...]]) -> None:
    """As many tensors of each shape as the model has, its first convolution aside. Raises DataError."""
    stem = "model.model.stages.0.downsample_layers.0.weight"
    ours = Counter(shape for name, shape in wanted.items() if name != stem)
    fit = (ours & Counter(files.tensors_of_folder(folder).values())).total()
    if fit < ours.total():
        raise DataError(f"{folder}: holds {fit} of the {ours.total()} tensors that its config.json asks for", "weights")


def convnext_shape(options: ConvNext, channels: int, image_size: int) -> BackboneShape:
    """Sizes and the exact number of parameters. Raises DataError for bad weights."""
    config = config_of(options, channels)
    tensors = dict(tensors_of(config))
    statistics = None
    if options.weights:
        folder = files.find_weights(options.weights, options.revision, only_config=True)
        statistics = files.pixel_statistics(folder)
        if Path(options.weights).expanduser().is_dir():
            check_tensors(folder, tensors)
    width = config["hidden_sizes"][-1]
    return BackboneShape(
        width, len(config["depths"]), 1, EXPANSION * width, stride_of(config), channels, 1,
        sum(map(math.prod, tensors.values())), masks=False, drops=False, statistics=statistics, warm=options.weights,
        layout=layout_of(config["depths"]), tensors=tensors, convolutions=costs_of(config),
    )  # fmt: skip


def convnext_from_weights(options: ConvNext, weights: str) -> ConvNext:
    """The same training options, from weights."""
    return ConvNext(weights=weights, drop_path=options.drop_path)
