"""Declarations of what the core ships."""

import attrs

from dinomx_core.builtin.crops import (
    MultiCrop,
    check_multicrop,
    leaves_colours,
    multicrop_preprocessing,
    multicrop_views,
)
from dinomx_core.builtin.data_options import (
    Digits,
    FullRange,
    ImageFiles,
    Mix,
    check_full_range,
    count_digits,
    inspect_mix,
)
from dinomx_core.builtin.evaluators.options import (
    Clustering,
    DenseKnn,
    DenseLinear,
    Knn,
    Linear,
    Logistic,
    RankMe,
    Robustness,
    check_clustering,
    check_dense,
    check_knn,
    check_linear,
    check_logistic,
)
from dinomx_core.builtin.families import Hf, hf_from_weights, hf_shape
from dinomx_core.builtin.marks import Marked, inspect_marked
from dinomx_core.builtin.picture_options import ImageFolder, ManifestFile, in_folder, in_rows
from dinomx_core.builtin.sources import HfDataset, MedMnist, Shards, count_medmnist, count_rows, count_shards
from dinomx_core.builtin.trackers.options import Mlflow, TensorBoard, Wandb, needs
from dinomx_core.declare.components import (
    Augmentation,
    Backbone,
    Dataset,
    Evaluator,
    Intensity,
    Parallelism,
    Reader,
    Strategy,
    Tracker,
)
from dinomx_core.declare.hooks import hookimpl
from dinomx_core.declare.processes import Division, Load, Processes
from dinomx_core.declare.values import (
    Schedule,
    fraction,
    option,
    schedule_of,
)


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
    yield Dataset("marked", Marked, "dinomx_core.builtin.marked:MarkedData", inspect=inspect_marked)
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
def dinomx_trackers():
    for name, options, build in (
        ("tensorboard", TensorBoard, "tensorboard:TensorBoardTracker"),
        ("wandb", Wandb, "wandb:WandbTracker"),
        ("mlflow", Mlflow, "mlflow:MlflowTracker"),
    ):
        yield Tracker(name, options, f"dinomx_core.builtin.trackers.{build}", check=needs(name))


@hookimpl
def dinomx_evaluators():
    for name, options, build, check in (
        ("linear", Linear, "linear:LinearEvaluator", check_linear),
        ("knn", Knn, "knn:KnnEvaluator", check_knn),
        ("logistic", Logistic, "logistic:LogisticEvaluator", check_logistic),
        ("clustering", Clustering, "clustering:ClusteringEvaluator", check_clustering),
        ("robustness", Robustness, "robustness:RobustnessEvaluator", None),
        ("rankme", RankMe, "rankme:RankMeEvaluator", None),
        ("dense-knn", DenseKnn, "dense_knn:DenseKnnEvaluator", check_dense),
        ("dense-linear", DenseLinear, "dense_linear:DenseLinearEvaluator", check_dense),
    ):
        yield Evaluator(name, options, f"dinomx_core.builtin.evaluators.{build}", check=check)
