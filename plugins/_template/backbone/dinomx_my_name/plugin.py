"""Declarations. No torch here: the plan and `dinomx --help` read them."""

import attrs

from dinomx_core import Backbone, BackboneShape, hookimpl, option, positive
from dinomx_core.builtin.families import Hf, hf_shape

DINOMX_API = 1


@attrs.frozen
class MyName:
    """A small vision transformer whose positions start as sines and cosines (Chen et al. 2021, MoCo v3, section 4.1)."""

    width: int = option(64, "features of a token, a multiple of 4", check=positive)
    depth: int = option(3, "blocks", check=positive)
    heads: int = option(2, "attention heads of a block", check=positive)
    patch_size: int = option(4, "side of a patch in pixels", check=positive)


def as_hf(options: MyName) -> Hf:
    """The same as the core's adapter of transformers' models has it, so that the exported folder opens there."""
    return Hf(family="vit", mask_token=True, **attrs.asdict(options))


def my_name_shape(options: MyName, channels: int, image_size: int) -> BackboneShape:
    """Sizes, and all parameters by name."""
    return hf_shape(as_hf(options), channels, image_size)


@hookimpl
def dinomx_backbones():
    yield Backbone("my-name", MyName, "dinomx_my_name.backbone:build", shape=my_name_shape)
