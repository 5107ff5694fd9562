"""Options of the core's crops."""

from typing import Literal

import attrs

from dinomx_core.declare.facts import Draft, Preprocessing, View
from dinomx_core.declare.values import (
    Chosen,
    Size,
    fraction,
    not_negative,
    option,
    ordered_pair,
    positive,
    share_range,
    size_option,
    slot,
)

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@attrs.frozen
class Crops:
    """One named set of random crops and what is done to their pixels."""

    count: int = option(doc="crops of an image", check=not_negative)
    size: Size = size_option("side in pixels, or [height, width]")
    area: list[float] = option(doc="smallest and largest share of the image's area", check=share_range)
    aspect: list[float] = option([3 / 4, 4 / 3], "smallest and largest width / height", check=ordered_pair)
    flip: float = option(0.5, "probability of a left-right flip", check=fraction)
    vertical_flip: float = option(0.0, "probability of an up-down flip", check=fraction)
    jitter: float = option(0.8, "probability of colour jitter", check=fraction)
    brightness: float = option(0.4, "brightness factor is drawn from 1 -/+ this", check=not_negative)
    contrast: float = option(0.4, "contrast factor is drawn from 1 -/+ this", check=not_negative)
    saturation: float = option(
        0.2, "saturation factor is drawn from 1 -/+ this; three channels only", check=not_negative
    )
    hue: float = option(
        0.1, "hue shift is drawn from -/+ this share of the circle; three channels only", check=fraction
    )
    grey: float = option(0.2, "probability of losing colour; three channels only", check=fraction)
    blur: list[float] = option([0.5], "probability of Gaussian blur, one for all crops or one a crop", check=fraction)
    blur_sigma: list[float] = option(
        [0.1, 2.0], "smallest and largest sigma, in pixels of the crop", check=ordered_pair
    )
    solarize: list[float] = option([0.0], "probability of solarising, one for all crops or one a crop", check=fraction)

    def __attrs_post_init__(self) -> None:
        for name in ("blur", "solarize"):
            given = len(getattr(self, name))
            if given not in (1, self.count):
                wanted = f"1 or {self.count}" if self.count > 1 else "1"
                raise ValueError(f"{name} has {given} probabilities for {self.count} crops; give {wanted}")


@attrs.frozen
class GramCrops:
    """The global crops once more, at another size: what a Gram teacher sees (Siméoni et al. 2025, section 4.3)."""

    size: Size = size_option("side in pixels, or [height, width]")
    distorted: bool = option(False, "change their pixels as those of the global crops")


@attrs.frozen
class CropSizes:
    """One of the sets of sizes that batches are drawn from."""

    share: float = option(doc="of the batches, in proportion to the other sets'", check=positive)
    globals: Size = size_option("of global crops")
    locals: Size | None = size_option("of local crops; left out: as in their table", None)
    gram: Size | None = size_option("of the Gram teacher's crops; left out: as in their table", None)


@attrs.frozen
class MultiCrop:
    """Large global and small local crops of each image, as in DINO (Caron et al. 2021, section 3.1)."""

    globals: Crops = option(doc='the view "global"')
    locals: Crops | None = option(None, 'the view "local"; left out: none')
    gram: GramCrops | None = option(None, 'the view "gram", of the same places as the global crops; left out: none')
    sizes: list[CropSizes] = option([], "mixed sizes: each batch has those of one set; none: the tables' own")
    channels: Literal["all", "locals", "each", "one"] = option(
        "all",
        "channels of the crops, for backbones that take some of them: all; locals: local crops have a random number of random ones "
        "(hierarchical channel sampling, Bao et al. 2024), the same for a step; each: global crops, too; one: all crops of an image have "
        "one of its channels",
    )
    where: Chosen | None = slot(
        "placement", None, "what moves crops to places of its choice; left out: they lie anywhere"
    )
    mean: list[float] = option(IMAGENET_MEAN, "subtracted from pixels over 0..1, one for all channels or one a channel")
    std: list[float] = option(IMAGENET_STD, "divided by, likewise", check=positive)
    resize: int = option(
        0, "evaluation: shorter side before the centre crop of the global size; 0: 256/224 of it", check=not_negative
    )


def multicrop_views(options: MultiCrop) -> list[View]:
    """Global, local and the Gram teacher's; of mixed sizes the largest, and the others beside it."""
    tables = [("global", "globals", options.globals.count, options.globals.size)]
    if options.locals is not None and options.locals.count:
        tables.append(("local", "locals", options.locals.count, options.locals.size))
    if options.gram is not None:
        tables.append(("gram", "gram", options.globals.count, options.gram.size))
    views = []
    for name, table, count, size in tables:
        found = {getattr(mixed, table) or size for mixed in options.sizes} or {size}
        sizes = sorted(found, key=lambda one: (one.height * one.width, one.height))
        key = "sizes" if options.sizes else f"{table}.size"
        places = "global" if name == "gram" else ""
        views.append(View(name, count, sizes[-1], key=key, others=tuple(sizes[:-1]), places=places))
    return views


def multicrop_preprocessing(options: MultiCrop) -> Preprocessing:
    """Resize 256, centre crop 224, in proportion to the global size."""
    size = options.globals.size
    return Preprocessing(options.resize or round(min(size) * 256 / 224), size, tuple(options.mean), tuple(options.std))


def leaves_colours(options: MultiCrop) -> bool:
    """Whether nothing is done to pixels that means 0..1."""
    tables = [table for table in (options.globals, options.locals) if table is not None]
    return not any(table.jitter or any(table.solarize) for table in tables)


def check_multicrop(options: MultiCrop, draft: Draft) -> list[tuple[str, str]]:
    """The evaluation's centre crop must fit; mixed sizes name only crops that are made."""
    size, problems = min(options.globals.size), []
    if 0 < options.resize < size:
        problems.append(("resize", f"{options.resize} is smaller than the centre crop of {size}"))
    for name in ("locals", "gram"):
        if getattr(options, name) is None and any(getattr(sizes, name) for sizes in options.sizes):
            problems.append(
                ("sizes", f"give {name} a size, but there is no table {name}; add it, or leave the size out")
            )
    return problems
