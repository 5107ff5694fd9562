"""Options of augmentations by domain: crops, and what may be done to pixels of that kind of image. No torch."""

from typing import Literal

import attrs

from dinomx_core import Draft, fraction, not_negative, option, ordered_pair, positive, share_range
from dinomx_core.builtin.crops import Crops, CropSizes, GramCrops, MultiCrop, check_multicrop
from dinomx_core.declare.values import Chosen, Size, size_option, slot


@attrs.frozen
class GlobalCrops:
    """Large crops."""

    count: int = option(2, "crops of an image", check=positive)
    size: Size = size_option("side in pixels, or [height, width]", 224)
    area: list[float] = option([0.4, 1.0], "smallest and largest share of the image's area", check=share_range)
    aspect: list[float] = option([3 / 4, 4 / 3], "smallest and largest width / height", check=ordered_pair)


@attrs.frozen
class LocalCrops:
    """Small crops."""

    count: int = option(8, "crops of an image", check=not_negative)
    size: Size = size_option("side in pixels, or [height, width]", 96)
    area: list[float] = option([0.05, 0.4], "smallest and largest share of the image's area", check=share_range)
    aspect: list[float] = option([3 / 4, 4 / 3], "smallest and largest width / height", check=ordered_pair)


@attrs.frozen(kw_only=True)
class Domain:
    """What all domains have: crops, and changes of pixels that need no colour. Nothing is cut off at 0 or 1."""

    globals: GlobalCrops = option(GlobalCrops(), 'the view "global"')
    locals: LocalCrops | None = option(LocalCrops(), 'the view "local"; count = 0: none')
    gram: GramCrops | None = option(None, 'the view "gram", of the same places as the global crops; left out: none')
    sizes: list[CropSizes] = option([], "mixed sizes: each batch has those of one set; none: the tables' own")
    channels: Literal["all", "locals", "each", "one"] = option(
        "all", "channels of the crops, for backbones that take some of them (see `multicrop`)"
    )
    where: Chosen | None = slot(
        "placement", None, "what moves crops to places of its choice; left out: they lie anywhere"
    )
    mean: list[float] = option([0.5], "subtracted from pixels over 0..1, one for all channels or one a channel")
    std: list[float] = option([0.25], "divided by, likewise", check=positive)
    resize: int = option(
        0, "evaluation: shorter side before the centre crop of the global size; 0: 256/224 of it", check=not_negative
    )
    flip: float = option(0.0, "probability of a left-right flip", check=fraction)
    vertical_flip: float = option(0.0, "probability of an up-down flip", check=fraction)
    quarter_turns: bool = option(False, "turn by a random multiple of 90 degrees (180 where a crop is not square)")
    rotate: float = option(
        0.0, "largest turn, in degrees, of half of the crops; the edge is repeated", check=not_negative
    )
    change: float = option(0.8, "probability of a change of intensity: scale, shift and gamma together", check=fraction)
    scale: float = option(0.0, "factor is drawn from 1 -/+ this", check=fraction)
    shift: float = option(0.0, "summand is drawn from -/+ this", check=not_negative)
    gamma: list[float] = option(
        [1.0, 1.0],
        "exponent between each crop's own ends is drawn from these, its logarithm evenly",
        check=ordered_pair,
    )
    by_channel: bool = option(False, "draw scale, shift and gamma for each channel")
    bias: float = option(
        0.0, "probability of a bias field: brightness that changes slowly over the crop", check=fraction
    )
    bias_strength: float = option(0.3, "largest coefficient of its polynomial of degree 3", check=not_negative)
    noise: float = option(0.3, "probability of Gaussian noise", check=fraction)
    noise_std: list[float] = option([0.005, 0.03], "smallest and largest standard deviation", check=ordered_pair)
    blur: float = option(0.3, "probability of Gaussian blur", check=fraction)
    blur_sigma: list[float] = option(
        [0.1, 1.0], "smallest and largest sigma, in pixels of the crop", check=ordered_pair
    )
    channel_dropout: float = option(
        0.0, "probability that a channel becomes its mean; one is always left", check=fraction
    )


@attrs.frozen(kw_only=True)
class Ct(Domain):
    """Computed tomography: a body has a left and a right, so no flips; windows differ a little, and the dose."""

    rotate: float = option(
        10.0, "largest turn, in degrees, of half of the crops; the edge is repeated", check=not_negative
    )
    scale: float = option(0.1, "factor is drawn from 1 -/+ this", check=fraction)
    shift: float = option(0.1, "summand is drawn from -/+ this", check=not_negative)
    gamma: list[float] = option(
        [0.8, 1.25],
        "exponent between each crop's own ends is drawn from these, its logarithm evenly",
        check=ordered_pair,
    )


@attrs.frozen(kw_only=True)
class Mri(Domain):
    """Magnetic resonance: no units, uneven coils, other contrasts from scanner to scanner; no flips."""

    rotate: float = option(
        10.0, "largest turn, in degrees, of half of the crops; the edge is repeated", check=not_negative
    )
    scale: float = option(0.2, "factor is drawn from 1 -/+ this", check=fraction)
    shift: float = option(0.1, "summand is drawn from -/+ this", check=not_negative)
    gamma: list[float] = option(
        [0.7, 1.5],
        "exponent between each crop's own ends is drawn from these, its logarithm evenly",
        check=ordered_pair,
    )
    by_channel: bool = option(True, "draw scale, shift and gamma for each channel")
    bias: float = option(
        0.5, "probability of a bias field: brightness that changes slowly over the crop", check=fraction
    )


@attrs.frozen(kw_only=True)
class Xray(Domain):
    """Projections: chests have a heart on one side, so no flips; exposure and contrast differ widely."""

    rotate: float = option(
        7.0, "largest turn, in degrees, of half of the crops; the edge is repeated", check=not_negative
    )
    scale: float = option(0.2, "factor is drawn from 1 -/+ this", check=fraction)
    shift: float = option(0.1, "summand is drawn from -/+ this", check=not_negative)
    gamma: list[float] = option(
        [0.7, 1.4],
        "exponent between each crop's own ends is drawn from these, its logarithm evenly",
        check=ordered_pair,
    )
    noise_std: list[float] = option([0.005, 0.02], "smallest and largest standard deviation", check=ordered_pair)


@attrs.frozen(kw_only=True)
class Microscopy(Domain):
    """Cells and tissue: no up or left; stains and exposures differ a channel."""

    flip: float = option(0.5, "probability of a left-right flip", check=fraction)
    vertical_flip: float = option(0.5, "probability of an up-down flip", check=fraction)
    quarter_turns: bool = option(True, "turn by a random multiple of 90 degrees (180 where a crop is not square)")
    scale: float = option(0.2, "factor is drawn from 1 -/+ this", check=fraction)
    shift: float = option(0.1, "summand is drawn from -/+ this", check=not_negative)
    gamma: list[float] = option(
        [0.8, 1.25],
        "exponent between each crop's own ends is drawn from these, its logarithm evenly",
        check=ordered_pair,
    )
    by_channel: bool = option(True, "draw scale, shift and gamma for each channel")
    channel_dropout: float = option(
        0.1, "probability that a channel becomes its mean; one is always left", check=fraction
    )


@attrs.frozen(kw_only=True)
class Multispectral(Domain):
    """Bands seen from above: no up or left; spectra carry the meaning, so bands change little and together."""

    flip: float = option(0.5, "probability of a left-right flip", check=fraction)
    vertical_flip: float = option(0.5, "probability of an up-down flip", check=fraction)
    quarter_turns: bool = option(True, "turn by a random multiple of 90 degrees (180 where a crop is not square)")
    scale: float = option(0.1, "factor is drawn from 1 -/+ this", check=fraction)
    shift: float = option(0.05, "summand is drawn from -/+ this", check=not_negative)
    noise_std: list[float] = option([0.002, 0.01], "smallest and largest standard deviation", check=ordered_pair)
    blur: float = option(0.2, "probability of Gaussian blur", check=fraction)
    channel_dropout: float = option(
        0.1, "probability that a channel becomes its mean; one is always left", check=fraction
    )


@attrs.frozen(kw_only=True)
class Natural(MultiCrop):
    """Photographs: crops of DINO's sizes, flips and changes of colour (those of `multicrop`, whose tables it fills in)."""

    globals: Crops = option(Crops(2, 224, [0.4, 1.0], blur=[1.0, 0.1], solarize=[0.0, 0.2]), 'the view "global"')  # type: ignore[arg-type]
    locals: Crops | None = option(Crops(8, 96, [0.05, 0.4]), 'the view "local"')  # type: ignore[arg-type]


DOMAINS: dict[str, type] = {
    "ct": Ct, "mri": Mri, "xray": Xray, "microscopy": Microscopy, "multispectral": Multispectral,
}  # fmt: skip


def check_domain(options: Domain, draft: Draft) -> list[tuple[str, str]]:
    """As `multicrop`'s; what turns crops cannot keep the Gram teacher's crops at their places."""
    problems = list(check_multicrop(options, draft))  # type: ignore[arg-type]
    for name in ("rotate", "quarter_turns"):
        if options.gram is not None and getattr(options, name):
            off = "0" if name == "rotate" else "false"
            problems.append((name, f"turns the global crops, but the Gram teacher's stay as they are; set {off}"))
    return problems
