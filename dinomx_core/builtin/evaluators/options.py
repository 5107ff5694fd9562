"""Options of the core's evaluators, and what they need of their data. No torch."""

from collections.abc import Sequence
from typing import Any

import attrs

from dinomx_core.declare.facts import DataInfo, Draft, LabelKind
from dinomx_core.declare.values import Chosen, below_one, not_negative, option, positive, slot

KINDS: dict[LabelKind, str] = {"class": "a class each", "classes": "several classes each", "number": "numbers"}
LRS = [0.003, 0.01, 0.03, 0.1, 0.3, 1.0]
IGNORE = 'number in masks of pixels that are of no known class: they are neither learnt nor judged; "-1": there is none'


def some_positive(instance: object, attribute: object, value: list[int]) -> None:
    """attrs validator: one or more numbers above 0."""
    if not value or min(value) <= 0:
        raise ValueError(f"must be one or more numbers above 0, got {value}")


def quarters(instance: object, attribute: object, value: list[int]) -> None:
    """attrs validator: one or more quarter turns."""
    if not value or any(angle % 90 or not angle % 360 for angle in value):
        raise ValueError(f"must be one or more of 90, 180 and 270, got {value}")


def not_one(instance: object, attribute: object, value: int) -> None:
    """attrs validator: 0, or 2 and more."""
    if value < 0 or value == 1:
        raise ValueError(f"must be 0, or 2 or more, got {value}")


@attrs.frozen
class Knn:
    """Weighted k-nearest-neighbour classification on frozen features (Wu et al. 2018, as in DINO's evaluation).

    Of several classes each gets its share of the votes; numbers are foretold by the neighbours' weighted mean.
    """

    query: Chosen = slot("dataset", doc="labelled images that are classified")
    bank: Chosen = slot("dataset", doc="labelled images that vote")
    k: list[int] = option(
        [10, 20, 100, 200], "numbers of neighbours; those above the bank's size are left out", check=some_positive
    )
    temperature: float = option(0.07, "a neighbour's vote is exp(cosine / temperature)", check=positive)
    batch_size: int = option(256, "images a forward pass", check=positive)


@attrs.frozen
class Linear:
    """Linear classification on frozen features: a sweep of learning rates in one go, chosen on a held-out part of the bank.

    Several classes are each told from the rest; numbers get a ridge regression, whose penalty is chosen in the same way.
    """

    query: Chosen = slot("dataset", doc="labelled images that are classified")
    bank: Chosen = slot("dataset", doc="labelled images that the layer is trained on")
    lr: list[float] = option(LRS, "learning rates, trained side by side; not for numbers", check=positive)
    epochs: int = option(50, "passes over the bank; not for numbers", check=positive)
    holdout: float = option(0.1, "share of the bank's images that chooses the learning rate", check=below_one)
    batch_size: int = option(256, "images a step, and a forward pass", check=positive)


@attrs.frozen
class Logistic:
    """Logistic regression on frozen features (scikit-learn), its penalty chosen on a held-out part of the bank, then fitted to all.

    Several classes are each told from the rest.
    """

    query: Chosen = slot("dataset", doc="labelled images that are classified")
    bank: Chosen = slot("dataset", doc="labelled images that the regression is fitted to")
    C: list[float] = option([0.001, 0.01, 0.1, 1.0, 10.0], "inverse penalties that are tried", check=positive)
    iterations: int = option(1000, "of L-BFGS at most", check=positive)
    holdout: float = option(0.1, "share of the bank's images that chooses C", check=below_one)
    batch_size: int = option(256, "images a forward pass", check=positive)


@attrs.frozen
class Clustering:
    """k-means on normalised features: how well its clusters stand apart, and how far they are the classes, where there are any."""

    data: Chosen = slot("dataset", doc="the images; labels are compared with the clusters, not used to find them")
    clusters: int = option(0, "how many; 0: as many as there are classes", check=not_one)
    images: int = option(10000, "so many at most, evenly spread; 0: all", check=not_negative)
    batch_size: int = option(256, "images a forward pass", check=positive)


@attrs.frozen
class Robustness:
    """Mean cosine between the features of an image and of the same image changed: flipped, turned, of another intensity. No labels."""

    data: Chosen = slot("dataset", doc="the images; labels are not used")
    rotation: list[int] = option([90, 180, 270], "degrees of the turns", check=quarters)
    jitter: float = option(
        0.2,
        "contrast times 1 + jitter and 1 - jitter, and brightness by jitter standard deviations of the image up and down",
        check=positive,
    )
    images: int = option(500, "so many at most, evenly spread; 0: all", check=not_negative)
    batch_size: int = option(128, "images a forward pass", check=positive)


@attrs.frozen
class RankMe:
    """The features' effective rank (RankMe, Garrido et al. 2023): how many directions they really use. No labels."""

    data: Chosen = slot("dataset", doc="the images; labels are not used")
    images: int = option(25600, "so many at most, evenly spread; 0: all", check=not_negative)
    batch_size: int = option(256, "images a forward pass", check=positive)


@attrs.frozen
class DenseKnn:
    """Segmentation by the nearest neighbours of patches: those of the query's images get the classes that patches of the bank vote for."""

    query: Chosen = slot("dataset", doc="images with masks that are segmented")
    bank: Chosen = slot("dataset", doc="images with masks whose patches vote")
    k: int = option(20, "neighbours of a patch", check=positive)
    temperature: float = option(0.07, "a neighbour's vote is exp(cosine / temperature)", check=positive)
    patches: int = option(50000, "of the bank at most, as many of each image, drawn once for all", check=positive)
    ignore: int = option(255, IGNORE)
    objects: bool = option(False, "all numbers above 0 are one class: for masks that number objects")
    batch_size: int = option(64, "images a forward pass", check=positive)


@attrs.frozen
class DenseLinear:
    """Segmentation by a linear layer on patches, trained on the masks of the bank; held-out images choose the learning rate."""

    query: Chosen = slot("dataset", doc="images with masks that are segmented")
    bank: Chosen = slot("dataset", doc="images with masks whose patches the layer is trained on")
    lr: list[float] = option(LRS, "learning rates, trained side by side", check=positive)
    epochs: int = option(10, "passes over the bank's patches", check=positive)
    holdout: float = option(0.1, "share of the bank's images that chooses the learning rate", check=below_one)
    patches: int = option(50000, "of the bank at most, as many of each image, drawn once for all", check=positive)
    ignore: int = option(255, IGNORE)
    objects: bool = option(False, "all numbers above 0 are one class: for masks that number objects")
    batch_size: int = option(64, "images a forward pass", check=positive)


def two_sets(options: Any) -> tuple[list[tuple[str, str]], dict[str, DataInfo]]:
    """What keeps `bank` and `query` from being compared, and what they hold."""
    problems = []
    if (options.bank.component, options.bank.options) == (options.query.component, options.query.options):
        problems.append(("query", "is the bank itself: every image would find itself; name held-out images"))
    return problems, {name: inspected(getattr(options, name)) for name in ("bank", "query")}


def inspected(chosen: Chosen) -> DataInfo:
    """What a data set holds."""
    return chosen.component.inspect(chosen.options)


def labelled_sets(
    options: Any, what: str, kinds: Sequence[LabelKind] = tuple(KINDS)
) -> tuple[list[tuple[str, str]], dict[str, DataInfo]]:
    """The same, where both need labels of one kind, which is one of `kinds`."""
    problems, infos = two_sets(options)
    for name, info in infos.items():
        if not info.labelled:
            problems.append((name, f"has no labels; {what} needs a folder a class"))
        elif info.label_kind not in kinds:
            others = " and ".join(f"`{other}`" for other in ("knn", "linear"))
            problems.append(
                (name, f"has labels that are {KINDS[info.label_kind]}; {what} needs classes: take {others} for these")
            )
    bank, query = infos["bank"], infos["query"]
    if bank.labelled and query.labelled and bank.label_kind != query.label_kind:
        problems.append(
            (
                "query",
                f"has labels that are {KINDS[query.label_kind]}, those of the bank are {KINDS[bank.label_kind]}; give both the same "
                "label_kind",
            )
        )
    elif bank.classes and (unknown := sorted(set(query.classes) - set(bank.classes))):
        problems.append(("query", f"has classes that the bank does not have: {', '.join(unknown)}"))
    return problems, infos


def check_knn(options: Knn, draft: Draft) -> list[tuple[str, str]]:
    """Both sets need labels, and the smallest k a bank that large."""
    problems, infos = labelled_sets(options, "k-NN")
    if infos["bank"].count < min(options.k):
        problems.append(("k", f"the bank's {infos['bank'].count} images are fewer than k = {min(options.k)}"))
    return problems


def one_class(infos: dict[str, DataInfo]) -> list[tuple[str, str]]:
    """What is wrong with a bank that has one class only."""
    bank = infos["bank"]
    if len(bank.classes) != 1 or bank.label_kind != "class":
        return []
    return [("bank", f"has one class only ({bank.classes[0]}); a classifier needs two")]


def check_linear(options: Linear, draft: Draft) -> list[tuple[str, str]]:
    """Both sets need labels, and the bank two classes."""
    problems, infos = labelled_sets(options, "a linear classifier")
    return problems + one_class(infos)


def check_logistic(options: Logistic, draft: Draft) -> list[tuple[str, str]]:
    """Both sets need classes, and the bank two."""
    problems, infos = labelled_sets(options, "logistic regression", ("class", "classes"))
    return problems + one_class(infos)


def check_clustering(options: Clustering, draft: Draft) -> list[tuple[str, str]]:
    """There must be a number of clusters, and as many images."""
    info = inspected(options.data)
    known = info.label_kind == "class" and len(info.classes) > 1
    if not options.clusters and not known:
        why = f"labels that are {KINDS[info.label_kind]}" if info.labelled else "no labels"
        if info.labelled and info.label_kind == "class":
            why = "one class only"
        return [("clusters", f"is not known, since the images have {why}; give a number")]
    clusters, count = options.clusters or len(info.classes), min(info.count, options.images or info.count)
    return [("clusters", f"{clusters} of {count} images; give fewer")] if clusters >= count else []


def check_dense(options: Any, draft: Draft) -> list[tuple[str, str]]:
    """Both sets need masks."""
    problems, infos = two_sets(options)
    for name, info in infos.items():
        if not info.regions:
            problems.append(
                (name, "comes without masks; give its manifest a column of masks (`mask`), or wrap it in `marked`")
            )
        elif info.boxes_alone:
            problems.append((name, "comes with boxes alone, and patches are judged by masks; give `masks`, too"))
    return problems
