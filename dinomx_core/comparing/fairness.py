"""What makes a comparison of runs unfair, in words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dinomx_core.comparing.runs import Run

if TYPE_CHECKING:
    from dinomx_core.comparing.groups import Group

NAMED = 5  # runs and keys that a warning names


def warnings(
    groups: Sequence[Group], absent: Sequence[str], figures: Sequence[str], at: str, keys: Sequence[str]
) -> Iterator[str]:
    """All of them. absent: runs that have not begun; keys: in which runs differ, and by which they could be told apart."""
    runs = [run for group in groups for run in group.runs]
    yield from unfinished(runs, absent)
    yield from mixed(groups, keys)
    yield from seeds(groups, keys)
    if len({run.images for run in runs}) > 1:
        least, most = min(run.images for run in runs), max(run.images for run in runs)
        yield f"the runs saw different numbers of images ({least} to {most}): what is compared is the training, too"
    yield from data(runs)
    yield from evaluations(runs, figures)
    yield from versions(runs)
    yield from budgets(groups)
    if at == "best" and figures:
        yield from chosen_by(runs, figures)


def named(names: Iterable[object]) -> str:
    """The first few of them."""
    found = list(dict.fromkeys(map(str, names)))
    return ", ".join(found[:NAMED]) + (f" and {len(found) - NAMED} more" if len(found) > NAMED else "")


def unfinished(runs: Sequence[Run], absent: Sequence[str]) -> Iterator[str]:
    """Runs that are not done."""
    cut = [f"{run.folder} ({progress(run)})" for run in runs if not run.finished]
    if cut:
        yield f"not finished: {named(cut)}"
    if absent:
        yield f"not begun, and left out: {named(absent)}"


def progress(run: Run) -> str:
    """How far a run is."""
    told = f"{run.steps} of {run.planned} steps"
    return f"{told}; without the stages {', '.join(run.missing)}" if run.missing else told


def mixed(groups: Sequence[Group], keys: Sequence[str]) -> Iterator[str]:
    """Groups of runs that differ in more than their seed."""
    found = [key for key in keys if any(len(values_of(group.runs, key)) > 1 for group in groups)]
    if found:
        yield f"runs of one group differ in more than their seed ({named(found)}): its spread is not that of seeds"


def seeds(groups: Sequence[Group], keys: Sequence[str]) -> Iterator[str]:
    """Groups of other seeds, and of one seed twice."""
    counts = [len(group.runs) for group in groups]
    if len(set(counts)) > 1:
        yield f"the groups have different numbers of runs ({', '.join(map(str, counts))})"
    elif len({tuple(sorted(run.seed for run in group.runs)) for group in groups}) > 1:
        yield "the groups have different seeds"
    if max(counts) == 1:
        yield "one run a group: a difference may be the seed's; take three seeds or more"
    alike: dict[str, list[Run]] = {}
    for run in (run for group in groups for run in group.runs):
        alike.setdefault(json.dumps([run.seed, *(run.values.get(key) for key in keys)]), []).append(run)
    if twice := [run.folder for found in alike.values() if len(found) > 1 for run in found]:
        yield f"one run several times (the same values and seed), which tells nothing of the spread: {named(twice)}"


def data(runs: Sequence[Run]) -> Iterator[str]:
    """Other images behind the same options."""
    images = {json.dumps([run.plan["data"]["count"], run.plan["data"]["digest"]]) for run in runs}
    same_options = (
        len({json.dumps({k: v for k, v in run.values.items() if k.startswith("data.")}) for run in runs}) == 1
    )
    if len(images) > 1 and same_options:
        counts = sorted({run.plan["data"]["count"] for run in runs})
        yield f"the training images are not the same ones ({', '.join(map(str, counts))} of them), though [data] is"


def evaluations(runs: Sequence[Run], figures: Sequence[str]) -> Iterator[str]:
    """Figures that are not of the same evaluation, or not of all runs."""
    for label in dict.fromkeys(figure.partition("/")[0] for figure in figures):
        prefix = f"evaluate.{label}."
        keys = dict.fromkeys(
            key for run in runs for key in run.values if key.startswith(prefix) and key != f"{prefix}every"
        )
        measured = [run for run in runs if f"{prefix}name" in run.values]
        if found := [key for key in keys if len(values_of(measured, key)) > 1]:
            yield f"the figures of {label} are of different evaluations: {named(found)} differ"
    for figure in figures:
        without = [run.folder for run in runs if figure not in run.figures]
        if without:
            yield f"{figure} is missing in {len(without)} of {len(runs)} runs: {named(without)}"


def versions(runs: Sequence[Run]) -> Iterator[str]:
    """Other code, and other machines."""
    for package in dict.fromkeys(name for run in runs for name in run.plan["env"]["versions"]):
        found = dict.fromkeys(run.plan["env"]["versions"].get(package, "missing") for run in runs)
        if len(found) > 1:
            yield f"the runs are of different versions of {package}: {', '.join(found)}"
    devices = dict.fromkeys(run.plan["device"] for run in runs)
    if len(devices) > 1:
        yield f"the runs are of different devices ({', '.join(devices)}): hours do not compare"


def budgets(groups: Sequence[Group]) -> Iterator[str]:
    """Groups that were chosen from among more than others."""
    tried = [group.budget.combinations if group.budget else 1 for group in groups]
    if len(set(tried)) > 1:
        yield f"the groups had different tuning budgets ({', '.join(map(str, tried))} combinations tried): tune each as much"


def chosen_by(runs: Sequence[Run], figures: Sequence[str]) -> Iterator[str]:
    """Figures at the step where one of them is best, which was found on the very images that they are of."""
    ours = [figure for figure in figures if any(query(run, figure) == query(run, figures[0]) for run in runs)]
    yield (
        f"each run's step was chosen by its best {figures[0]}, so {named(ours)} of the same query images "
        f"{'is' if len(ours) == 1 else 'are'} too good; choose by a figure of other images, or take --at last"
    )


def query(run: Run, figure: str) -> dict[str, Any]:
    """The options of the images that a figure is of."""
    prefix = f"evaluate.{figure.partition('/')[0]}."
    inner = {key[len(prefix) :].partition("."): value for key, value in run.values.items() if key.startswith(prefix)}
    return {rest: value for (table, _, rest), value in inner.items() if table in ("query", "data", "images") and rest}


def values_of(runs: Iterable[Run], key: str) -> set[str]:
    """Values of a key in runs."""
    return {json.dumps(run.values.get(key)) for run in runs}
