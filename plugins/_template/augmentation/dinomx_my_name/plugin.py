"""Declarations. No torch here: the plan and `dinomx --help` read them."""

import attrs

from dinomx_core import Augmentation, Preprocessing, View, fraction, hookimpl, option, positive

DINOMX_API = 1


@attrs.frozen
class MyName:
    """Two square crops, flipped along both axes: for images that have no up and no left."""

    size: int = option(16, "side of a crop in pixels", check=positive)
    smallest: float = option(0.5, "side of the smallest crop, as a share of the image's shorter one", check=fraction)
    mean: list[float] = option([0.5], "subtracted from pixels over 0..1, one for all channels or one a channel")
    std: list[float] = option([0.25], "divided by, likewise", check=positive)


@hookimpl
def dinomx_augmentations():
    yield Augmentation(
        "my-name",
        MyName,
        "dinomx_my_name.augmentation:MyNameAugmentation",
        views=lambda o: [View("global", 2, o.size, key="size")],
        preprocessing=lambda o: Preprocessing(o.size, o.size, tuple(o.mean), tuple(o.std)),
    )
