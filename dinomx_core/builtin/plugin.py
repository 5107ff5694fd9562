"""Declarations of what the core ships."""

from typing import Any, Literal

import attrs

from dinomx_core.builtin.data_options import (
    Digits,
    FullRange,
    ImageFiles,
    Mix,
    check_full_range,
    count_digits,
    inspect_mix,
)
from dinomx_core.builtin.families import Hf, hf_from_weights, hf_shape
from dinomx_core.builtin.picture_options import ImageFolder, ManifestFile, in_folder, in_rows
from dinomx_core.builtin.sources import HfDataset, MedMnist, Shards, count_medmnist, count_rows, count_shards
from dinomx_core.declare.components import (
    Augmentation,
    Backbone,
    Dataset,
    Evaluator,
    Intensity,
    Parallelism,
    Reader,
    Strategy,
)
from dinomx_core.declare.facts import (
    DataInfo,
    Draft,
    Preprocessing,
    View,
)
from dinomx_core.declare.hooks import hookimpl
from dinomx_core.declare.processes import Division, Load, Processes
from dinomx_core.declare.values import (
    Chosen,
    Schedule,
    Size,
    below_one,
    fraction,
    not_negative,
    option,
    ordered_pair,
    positive,
    schedule_of,
    share_range,
    size_option,
    slot,
)

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def some_positive(instance: object, attribute: object, value: list[int]) -> None:
    """attrs validator: one or more numbers above 0."""
    if not value or min(value) <= 0:
        raise ValueError(f"must be one or more numbers above 0, got {value}")


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


@attrs.frozen
class Ema:
    """A teacher that is the exponential moving average of the student (Caron et al. 2021)."""

    momentum: Schedule = option(
        Schedule(peak=0.996, end=1.0), "share of the teacher that is kept each step", check=schedule_of(fraction)
    )


@attrs.frozen
class Single:
    """One process."""


@attrs.frozen
class Ddp(Processes):
    """The same networks in every process; gradients are averaged (torch's DistributedDataParallel)."""


def divide_ddp(options: Ddp, load: Load) -> Division:
    """Every process holds everything, and the gradients besides in the buckets that they travel in. A ring sends each of them twice."""
    return Division(1.0, 0.0, 2 * 4 * load.trainable * (load.world_size - 1) / load.world_size)


@attrs.frozen
class Knn:
    """Weighted k-nearest-neighbour classification on frozen features (Wu et al. 2018, as in DINO's evaluation)."""

    query: Chosen = slot("dataset", doc="labelled images that are classified")
    bank: Chosen = slot("dataset", doc="labelled images that vote")
    k: list[int] = option(
        [10, 20, 100, 200], "numbers of neighbours; those above the bank's size are left out", check=some_positive
    )
    temperature: float = option(0.07, "a neighbour's vote is exp(cosine / temperature)", check=positive)
    batch_size: int = option(256, "images a forward pass", check=positive)


@attrs.frozen
class Linear:
    """Linear classification on frozen features: a sweep of learning rates in one go, chosen on a held-out part of the bank."""

    query: Chosen = slot("dataset", doc="labelled images that are classified")
    bank: Chosen = slot("dataset", doc="labelled images that the layer is trained on")
    lr: list[float] = option([0.003, 0.01, 0.03, 0.1, 0.3, 1.0], "learning rates, trained side by side", check=positive)
    epochs: int = option(50, "passes over the bank", check=positive)
    holdout: float = option(0.1, "share of the bank's images that chooses the learning rate", check=below_one)
    batch_size: int = option(256, "images a step, and a forward pass", check=positive)


def labelled_sets(options: Any, what: str) -> tuple[list[tuple[str, str]], dict[str, DataInfo]]:
    """What keeps `bank` and `query` from being compared, and what they hold."""
    problems = []
    infos = {}
    if (options.bank.component, options.bank.options) == (options.query.component, options.query.options):
        problems.append(("query", "is the bank itself: every image would find itself; name held-out images"))
    for name in ("bank", "query"):
        chosen = getattr(options, name)
        infos[name] = chosen.component.inspect(chosen.options)
        if not infos[name].classes:
            problems.append((name, f"has no labels; {what} needs a folder a class"))
    if infos["bank"].classes and infos["query"].classes:
        unknown = sorted(set(infos["query"].classes) - set(infos["bank"].classes))
        if unknown:
            problems.append(("query", f"has classes that the bank does not have: {', '.join(unknown)}"))
    return problems, infos


def check_knn(options: Knn, draft: Draft) -> list[tuple[str, str]]:
    """Both sets need labels, and the smallest k a bank that large."""
    problems, infos = labelled_sets(options, "k-NN")
    if infos["bank"].count < min(options.k):
        problems.append(("k", f"the bank's {infos['bank'].count} images are fewer than k = {min(options.k)}"))
    return problems


def check_linear(options: Linear, draft: Draft) -> list[tuple[str, str]]:
    """Both sets need labels, and the bank two classes."""
    problems, infos = labelled_sets(options, "a linear classifier")
    if len(infos["bank"].classes) == 1:
        problems.append(("bank", f"has one class only ({infos['bank'].classes[0]}); a classifier needs two"))
    return problems


@hookimpl
def dinomx_backbones():
    yield Backbone(
        "hf", Hf, "dinomx_core.builtin.hf:build_hf", shape=hf_shape, from_weights=hf_from_weights, general=True
    )


@hookimpl
def dinomx_datasets():
    yield Dataset("digits", Digits, "dinomx_core.builtin.digits:DigitsData", inspect=count_digits)
    yield Dataset("image-folder", ImageFolder, "dinomx_core.builtin.image_folder:ImageFolderData", inspect=in_folder)
    yield Dataset("manifest", ManifestFile, "dinomx_core.builtin.image_folder:ManifestData", inspect=in_rows)
    yield Dataset("mix", Mix, "dinomx_core.builtin.mix:MixData", inspect=inspect_mix)
    yield Dataset("shards", Shards, "dinomx_core.builtin.sourced:ShardsData", inspect=count_shards)
    yield Dataset("hf-dataset", HfDataset, "dinomx_core.builtin.sourced:HfData", inspect=count_rows)
    yield Dataset("medmnist", MedMnist, "dinomx_core.builtin.sourced:MedMnistData", inspect=count_medmnist)


@hookimpl
def dinomx_intensities():
    yield Intensity(
        "full-range", FullRange, "dinomx_core.builtin.full_range:FullRangeIntensity", check=check_full_range
    )


@hookimpl
def dinomx_readers():
    suffixes = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".npy")
    yield Reader("image", ImageFiles, "dinomx_core.builtin.image_reader:ImageReader", suffixes=suffixes, colour=True)


@hookimpl
def dinomx_augmentations():
    yield Augmentation(
        "multicrop",
        MultiCrop,
        "dinomx_core.builtin.multicrop:MultiCropAugmentation",
        views=multicrop_views,
        preprocessing=multicrop_preprocessing,
        check=check_multicrop,
        any_numbers=leaves_colours,
    )


@hookimpl
def dinomx_strategies():
    yield Strategy("ema", Ema, "dinomx_core.builtin.ema:EmaTeacher")


@hookimpl
def dinomx_parallelisms():
    yield Parallelism("single", Single, "dinomx_core.builtin.single:SingleProcess")
    yield Parallelism("ddp", Ddp, "dinomx_core.builtin.ddp:DataParallel", divide=divide_ddp)


@hookimpl
def dinomx_evaluators():
    yield Evaluator("linear", Linear, "dinomx_core.builtin.linear:LinearEvaluator", check=check_linear)
    yield Evaluator("knn", Knn, "dinomx_core.builtin.knn:KnnEvaluator", check=check_knn)
