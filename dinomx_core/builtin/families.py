"""The `hf` backbone's options, and what is known of each family of Hugging Face models without torch."""

import math
from pathlib import Path
from typing import Any, Literal

import attrs

from dinomx_core.builtin import weights as files
from dinomx_core.builtin.family_tensors import mlp_width, prefix_of, tensors_of
from dinomx_core.builtin.reference import Reference
from dinomx_core.declare.facts import BackboneShape
from dinomx_core.declare.layout import CLIP, DINOV2, DINOV3, VIT, Layout
from dinomx_core.declare.values import below_one, not_negative, option
from dinomx_core.errors import DataError, OtherFamily


@attrs.frozen
class Family:
    """One family of models: class names in transformers, tokens before the patches, and its config's defaults.

    `cls`: has a class token; `extra`: further tokens before the patches, registers aside. `table`: has a position table;
    `positioned`: its rows beside the patches'. `mask`: how it is given a mask token. `pooler`: is told to have none.
    `branches`: its blocks are the two scaled residual branches of DINOv2, whose drop path may leave out images, and whose
    positions may be interpolated with an offset; `rotary`: they are turned in pairs of two axes. `training`: keys of its config
    that weights may be given anew. `nested`: the type of a config that holds this family's as "vision_config". `layout`: where its
    parts are; `norm`: the last norm's name.
    """

    model: str
    config: str
    cls: bool = True
    extra: int = 0
    table: bool = True
    positioned: int = 1
    mask: Literal["argument", "config", "always", "added"] = "argument"
    pooler: bool = False
    layer_scale: bool = False
    branches: bool = False
    rotary: bool = False
    training: tuple[str, ...] = ()
    drop_path: bool = True
    nested: str = ""
    layout: Layout = VIT
    norm: str = "layernorm"
    defaults: dict[str, Any] = attrs.field(factory=dict)


BASE = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "patch_size": 16, "image_size": 224, "num_channels": 3,
}  # fmt: skip
FAMILIES: dict[str, Family] = {
    "vit": Family("ViTModel", "ViTConfig", pooler=True, defaults=BASE),
    "deit": Family("DeiTModel", "DeiTConfig", extra=1, positioned=2, pooler=True, defaults=BASE),
    "beit": Family(
        "BeitModel", "BeitConfig", mask="config", pooler=True, defaults={**BASE, "layer_scale_init_value": 0.1}
    ),
    "ijepa": Family("IJepaModel", "IJepaConfig", cls=False, positioned=0, pooler=True, defaults=BASE),
    "dinov2": Family(
        "Dinov2Model", "Dinov2Config", mask="config", layer_scale=True, branches=True, layout=DINOV2,
        defaults={**BASE, "mlp_ratio": 4, "patch_size": 14},
    ),
    "dinov2_with_registers": Family(
        "Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", mask="always", layer_scale=True, branches=True,
        layout=DINOV2, defaults={**BASE, "mlp_ratio": 4, "num_register_tokens": 4},
    ),
    "dinov3_vit": Family(
        "DINOv3ViTModel", "DINOv3ViTConfig", table=False, mask="always", layer_scale=True, branches=True, rotary=True,
        layout=DINOV3, norm="norm",
        training=("pos_embed_shift", "pos_embed_jitter", "pos_embed_rescale"),
        defaults={
            **BASE, "hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536, "key_bias": False,
            "num_register_tokens": 0,
        },
    ),
    "siglip_vision_model": Family(
        "SiglipVisionModel", "SiglipVisionConfig", cls=False, positioned=0, mask="added", drop_path=False, nested="siglip",
        layout=CLIP, norm="post_layernorm", defaults=BASE,
    ),
    "clip_vision_model": Family(
        "CLIPVisionModel", "CLIPVisionConfig", mask="added", drop_path=False, nested="clip",
        layout=CLIP, norm="post_layernorm",
        defaults={**BASE, "patch_size": 32},
    ),
}  # fmt: skip


@attrs.frozen
class Hf:
    """Any Hugging Face vision transformer with patch tokens: a folder, a model id, or a family from scratch."""

    weights: str = option(
        "",
        "folder with config.json and model.safetensors, a checkpoint file of DINO, DINOv2, DINOv3 or timm, or a model id "
        '("owner/name"); "": from scratch',
    )
    revision: str = option("", "branch, tag or commit of a model id")
    missing: list[str] = option([], 'tensors that the weights may lack, as patterns ("*mask_token"); they start fresh')
    other_channels: Literal["refuse", "average"] = option(
        "refuse",
        "weights made for another number of channels: refuse them, or give each channel the mean of theirs, scaled so that "
        "equal channels give the same features",
    )
    family: str = option("", f"from scratch: {', '.join(FAMILIES)}")
    width: int = option(0, "features of a token; 0: as the weights have it, 384 from scratch", check=not_negative)
    depth: int = option(0, "blocks; 0: as the weights have it, 12 from scratch", check=not_negative)
    heads: int = option(
        0, "attention heads of a block; 0: as the weights have it, width / 64 from scratch", check=not_negative
    )
    patch_size: int = option(
        0, "side of a patch in pixels; 0: as the weights or the family have it", check=not_negative
    )
    config: dict[str, Any] = option({}, "further keys of the family's config.json, from scratch")
    positions: Literal["model", "offset"] = option(
        "model",
        "interpolation of the position table to other grids: as the transformers model has it, or by a scale with 0.1 added as "
        "DINO's and DINOv2's code has it (dinov2 families)",
    )
    mask_token: bool = option(False, "a learnt token for masked patches, where the family does not always have one")
    drop_path: float = option(0.0, "probability that a block's branches are skipped in training", check=below_one)
    drop_path_rule: Literal["linear", "uniform"] = option(
        "linear", "linear: grows from 0 at the first block to the whole at the last; uniform: the same at each"
    )
    drop_path_subset: bool = option(
        False,
        "above 0.1, compute a branch for the images that keep it only, always the same share of the batch (DINOv2; dinov2 and "
        "dinov3 families)",
    )


@attrs.frozen
class Known:
    """What `hf` options come to: the family, its whole config, the weights' folder or file, and what is in such a file."""

    type: str
    family: Family
    config: dict[str, Any]
    folder: Path | None
    reference: Reference | None = None


def family_of(kind: Any, where: str, key: str) -> tuple[str, Family]:
    """The family of a model type. Raises OtherFamily for those that are not supported."""
    if isinstance(kind, str) and kind in FAMILIES:
        return kind, FAMILIES[kind]
    for name, family in FAMILIES.items():
        if family.nested == kind:
            return name, family
    raise OtherFamily(
        f'{where} "{kind}", of which DINO-MX does not know how to tell patch tokens apart; known: {", ".join(FAMILIES)}',
        key,
    )


def resolve(options: Hf, channels: int, image_size: int, only: str = "") -> Known:
    """Work the options out. Raises DataError naming the option at fault, OtherFamily for weights of another family than `only`, and
    OtherChannels for those of other channels."""
    sizes = {
        "hidden_size": ("width", options.width), "num_hidden_layers": ("depth", options.depth),
        "num_attention_heads": ("heads", options.heads), "patch_size": ("patch_size", options.patch_size),
    }  # fmt: skip
    if options.weights:
        if options.family:
            raise DataError("is for a model from scratch; the weights bring their own", "family")
        folder = files.find_weights(options.weights, options.revision, only_config=True)
        reference = None
        if folder.is_file():
            reference = files.read_reference(folder, options.heads)
            where, kind, family = folder, reference.type, FAMILIES[reference.type]
            config = plain_sizes({**family.defaults, **reference.config}, str(where), "weights")
        else:
            where, saved = folder / files.CONFIG, files.read_json(folder / files.CONFIG)
            kind, family = family_of(saved.get("model_type"), f"{folder}: holds a model of type", "weights")
            inner = saved.get("vision_config", saved) if family.nested else saved
            config = plain_sizes({**family.defaults, **(inner or {})}, str(where), "weights")
        if only and kind != only:
            raise OtherFamily(
                f'{where}: holds a model of type "{kind}", not "{only}"; take another backbone', "weights"
            )
        if fixed := sorted(set(options.config) - set(family.training)):
            raise DataError(f"{fixed[0]} is for a model from scratch; the weights bring their own", "config")
        config = {**config, **options.config}
        for key, (name, given) in sizes.items():
            if given and given != config[key]:
                raise DataError(f"{given}, but the weights have {config[key]} ({where})", name)
        files.check_channels(folder, config["num_channels"], channels, options.other_channels)
        check_heads(family, config)
        return Known(kind, family, config, folder, reference)
    if not options.family:
        raise DataError(f"name weights, or a family to start from scratch: {', '.join(FAMILIES)}", "family")
    kind, family = family_of(options.family, "is", "family")
    width = options.width or 384
    heads = options.heads or max(1, width // 64)
    config = {
        **family.defaults,
        "hidden_size": width, "num_hidden_layers": options.depth or 12, "num_attention_heads": heads,
        "intermediate_size": 4 * width, "num_channels": channels, "image_size": image_size,
    }  # fmt: skip
    if options.patch_size:
        config["patch_size"] = options.patch_size
    config = plain_sizes({**config, **options.config}, "backbone.config", "config")
    check_heads(family, config)
    if config["num_channels"] != channels:
        raise DataError(f"num_channels is {config['num_channels']}, the data have {channels} channels", "config")
    if family.table and config["image_size"] % config["patch_size"]:
        raise DataError(
            f"the position grid of {config['image_size']} px is no multiple of the patch of {config['patch_size']} px",
            "patch_size",
        )
    return Known(kind, family, config, None)


def check_heads(family: Family, config: dict[str, Any]) -> None:
    """The width divides over the heads, and rotary positions have pairs of features for both axes. Raises DataError (key "heads")."""
    width, heads = config["hidden_size"], config["num_attention_heads"]
    if width % heads:
        raise DataError(f"width {width} does not divide over {heads} heads", "heads")
    if family.rotary and width // heads % 4:
        raise DataError(
            f"{heads} heads of {width // heads} features; rotary positions need a multiple of 4 each", "heads"
        )


def plain_sizes(config: dict[str, Any], where: str, key: str) -> dict[str, Any]:
    """The config with its sizes checked to be whole numbers, squares given as pairs among them. Raises DataError."""
    for name in BASE:
        value = config[name]
        if isinstance(value, list) and len(set(map(str, value))) == 1:
            config[name] = value = value[0]
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise DataError(f"{where}: {name} is {value!r}; expected a whole number above 0 (squares only)", key)
    return config


def hf_shape(options: Hf, channels: int, image_size: int, only: str = "") -> BackboneShape:
    """Sizes, the exact number of parameters, and what the weights' preprocessing was. Raises DataError for bad weights, and those of
    another family than `only`."""
    known = resolve(options, channels, image_size, only)
    if options.drop_path and not known.family.drop_path:
        raise DataError(f"{known.type} blocks have no place for it; set 0", "drop_path")
    if options.drop_path_subset and not known.family.branches:
        raise DataError(f"{known.type} blocks cannot leave images out; set false", "drop_path_subset")
    if options.positions == "offset" and not (known.family.branches and known.family.table):
        raise DataError(f'{known.type} has no such interpolation; set "model"', "positions")
    if known.folder is not None:
        check_weights(known, options)
    c, always = known.config, known.family.mask == "always"
    statistics = None if known.folder is None or known.reference else files.pixel_statistics(known.folder)
    beside = known.reference.beside if known.reference else files.heads_beside(known.folder) if known.folder else {}
    tensors = tensors_of(known, channels, options.mask_token)
    return BackboneShape(
        c["hidden_size"], c["num_hidden_layers"], c["num_attention_heads"], mlp_width(known), c["patch_size"], channels,
        prefix_of(known), sum(map(math.prod, tensors.values())), masks=always or options.mask_token,
        drops=not (c.get("use_shared_relative_position_bias") or c.get("use_relative_position_bias")),
        statistics=statistics, warm=options.weights, layout=known.family.layout, tensors=tensors,
        beside=beside,
    )  # fmt: skip


def hf_from_weights(options: Hf, weights: str) -> Hf:
    """The same sizes, from weights."""
    return attrs.evolve(options, weights=weights, family="", config={})


def check_weights(known: Known, options: Hf) -> None:
    """Whole files whose patch projection has the config's sizes. Raises DataError."""
    assert known.folder is not None
    if known.reference or not Path(options.weights).expanduser().is_dir():
        return  # read already, or a model id, whose tensors are fetched when the run starts
    c = known.config
    wanted = (c["hidden_size"], c["num_channels"], c["patch_size"], c["patch_size"])
    for name, shape in files.tensors_of_folder(known.folder).items():
        if name.endswith(
            (".patch_embeddings.projection.weight", ".patch_embedding.weight", "embeddings.patch_embeddings.weight")
        ):
            if shape != wanted:
                raise DataError(
                    f"{known.folder}: {name} is {list(shape)} where config.json makes it {list(wanted)}", "weights"
                )
            return
    raise DataError(
        f"{known.folder}: has no patch projection, so these are not the weights of its config.json", "weights"
    )
