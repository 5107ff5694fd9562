"""Options of the core's evaluators, and what they need of their data."""

from typing import Any

import attrs

from dinomx_core.declare.facts import DataInfo, Draft
from dinomx_core.declare.values import (
    Chosen,
    below_one,
    option,
    positive,
    slot,
)


def some_positive(instance: object, attribute: object, value: list[int]) -> None:
    """attrs validator: one or more numbers above 0."""
    if not value or min(value) <= 0:
        raise ValueError(f"must be one or more numbers above 0, got {value}")


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
