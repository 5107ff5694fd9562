"""Augmentation by domain: crops as in multi-crop, pixels changed in ways that need no colour."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import torch
from monai.data.meta_obj import get_track_meta, set_track_meta
from monai.transforms import AdjustContrast, RandBiasField, Rotate
from torch import Tensor

from dinomx_core.builtin.multicrop import MultiCropAugmentation
from dinomx_core.training import pixels as px
from dinomx_medical_multichannel.domains import Domain

TURNED = 0.5  # share of the crops that are turned by some degrees


class DomainAugmentation(MultiCropAugmentation):
    """Every draw is made whether it is used or not, so that switching one change off moves no other."""

    options: Any

    def flips(self, crops: Any) -> tuple[float, float]:
        """Those of the domain, for all crops."""
        return self.options.flip, self.options.vertical_flip

    def change(self, image: Tensor, rng: Random, crops: Any, number: int) -> Tensor:
        """(C, h, w) float32 -> the same, changed."""
        o: Domain = self.options
        turns, angle, turned = rng.randrange(4), rng.uniform(-o.rotate, o.rotate), rng.random() < TURNED
        changed, biased, noisy, blurred = (rng.random() < share for share in (o.change, o.bias, o.noise, o.blur))
        std, sigma, seed = rng.uniform(*o.noise_std), rng.uniform(*o.blur_sigma), rng.getrandbits(32)
        draws = Random(rng.getrandbits(64))  # as many numbers as there are channels, whatever else is drawn
        if o.quarter_turns:
            square = image.shape[-1] == image.shape[-2]
            image = torch.rot90(image, turns if square else 2 * (turns % 2), (-2, -1))
        if turned and o.rotate:
            with untracked():
                image = Rotate(math.radians(angle), padding_mode="border")(image)
        if biased:
            field = RandBiasField(prob=1.0, coeff_range=(-o.bias_strength, o.bias_strength))
            with untracked():
                image = field.set_random_state(seed)(image)
        if changed:
            image = change_intensity(image, o, draws)
        if blurred:
            image = px.blur(image, sigma)
        if noisy:
            generator = torch.Generator().manual_seed(seed)
            image = image + std * torch.randn(image.shape, generator=generator)
        if o.channel_dropout and len(image) > 1:
            image = drop_channels(image, o.channel_dropout, draws)
        return image


@contextmanager
def untracked() -> Iterator[None]:
    """MONAI gives plain tensors within it: carrying along what it knows of them takes longer than most of its changes."""
    before = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(before)


def change_intensity(image: Tensor, o: Domain, draws: Random) -> Tensor:
    """Gamma, scale and shift, drawn once or for each channel."""
    parts = list(image[:, None]) if o.by_channel else [image]
    low, high = (math.log(value) for value in o.gamma)
    changed = []
    for part in parts:
        gamma, scale, shift = (
            math.exp(draws.uniform(low, high)),
            draws.uniform(-o.scale, o.scale),
            draws.uniform(-o.shift, o.shift),
        )
        if low != high:
            with untracked():
                part = AdjustContrast(gamma)(part)
        changed.append(part * (1 + scale) + shift)
    return torch.cat(changed)


def drop_channels(image: Tensor, share: float, draws: Random) -> Tensor:
    """Some channels as flat as their mean; one is always left."""
    dropped = [draws.random() < share for _ in range(len(image))]
    dropped[draws.randrange(len(image))] = False
    flat = image.mean((-2, -1), keepdim=True).expand_as(image)
    return torch.where(torch.tensor(dropped).view(-1, 1, 1), flat, image)
