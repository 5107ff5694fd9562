"""How images are shown: which of their channels, from where to where, and under which names."""

import re
from collections.abc import Sequence

import torch
from PIL import Image

from dinomx_core import ConfigError
from dinomx_core.errors import Problem
from dinomx_core.training.flow import Item
from dinomx_core.training.look.rows import Shown, ends_of
from dinomx_core.training.model import Model

COLOURS = ("red", "green", "blue")


def channels_of(model: Model, wanted: Sequence[int]) -> tuple[int, ...]:
    """The channels that are shown. Raises ConfigError for those that there are not."""
    if over := [number for number in wanted if number >= model.channels]:
        message = f"there is no channel {over[0]}; they go from 0 to {model.channels - 1}"
        raise ConfigError([Problem(message, "--channels")])
    return tuple(wanted) or tuple(range(min(3, model.channels)))


def rule_of(model: Model, channels: Sequence[int]) -> str:
    """How channels are shown, in words; "" where these are the colours of common pictures."""
    if model.channels == 3 and tuple(channels) == (0, 1, 2):
        return ""
    if len(channels) == 1:
        told = f"channel {channels[0]} in grey"
    else:
        told = "channels " + ", ".join(f"{channel} as {colour}" for colour, channel in zip(COLOURS, channels))
    return f"shown: {told}, of {model.channels}" if model.channels > 1 else ""


def picture_of(model: Model, item: Item, pixels: torch.Tensor, channels: tuple[int, ...]) -> Image.Image:
    """A prepared image's pixels (C, H, W) as a picture."""
    ends = ((0.0, 1.0),) * model.channels
    if item.image.is_floating_point() and not model.intensity.component.bounded(model.intensity.options):
        ends = ends_of(pixels, item.channels, model.channels)
    return Shown(channels, ends).picture(pixels, item.channels)


def stem(number: int, name: str) -> str:
    """What an image's files are called: its place, and its own name as every file system takes it."""
    own = re.sub(r"\.[A-Za-z0-9]{1,5}$", "", re.split(r"[/\\]", name)[-1])
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", own).strip(".-")[:60]
    return f"{number:02}-{plain}" if plain else f"{number:02}"
