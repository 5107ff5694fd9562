"""Checks of a plugin as a whole, by the runs of its example."""

import math
import os
import sys
from collections.abc import Iterator
from typing import Any

import torch

from dinomx_core import api
from dinomx_core.errors import ConfigError
from dinomx_core.testing import toy
from dinomx_core.testing.findings import PLUGIN, Skip, check
from dinomx_core.testing.processes import group
from dinomx_core.testing.runs import Cut, CutAt, left_by, of_rank, opened_by_transformers, planned, rows, steps
from dinomx_core.testing.subject import EXAMPLES, SHORT, Subject, not_the_users
from dinomx_core.training.build import build

CHANNELS = (1, 3, 5)
CLOSE = 1e-5  # relative: processes add up in another order
EXACT = {"run": {"precision": "float64"}}


def short(subject: Subject, *changes: dict[str, Any]) -> dict[str, Any]:
    """The example, made short. Skips where there is none."""
    subject.file(*EXAMPLES)
    if subject.example is None:
        raise Skip(f"{EXAMPLES[0]} is not there, or cannot be read")
    config = toy.changed(subject.example[0], SHORT)
    try:
        subject.once("plan", lambda: planned(subject, config))
    except ConfigError:
        raise Skip(f"{EXAMPLES[0]} cannot be planned; see `example`") from None
    return toy.changed(config, *changes)


def unsteady(some: list[dict[str, Any]]) -> Iterator[str]:
    """Numbers of rows that are not finite."""
    for row in some:
        for name, value in row.items():
            if isinstance(value, float) and not math.isfinite(value):
                yield f"step {row['step']}: {name} is {value}"


@check(PLUGIN, "example", "it has to train by itself, from the folder that the command is called in", slow=True)
def example(subject: Subject) -> Iterator[str]:
    """Two steps of example.toml train, and transformers opens the export."""
    file = subject.file(*EXAMPLES)
    if not file.is_file():
        raise Skip(f"there is no {file}")
    settings = ["run.steps=2", "run.name=example"]
    try:
        result = api.run(file, overrides=settings, plugins=subject.modules, out=subject.place, overwrite=True)
    except ConfigError as error:
        if not_the_users(error):
            raise
        raise Skip(f"it names files that are not here: {error}") from None
    yield from unsteady(rows(result.folder / "metrics.jsonl"))
    api.load(result.folder, plugins=subject.modules)
    opened_by_transformers(result.export)


@check(
    PLUGIN, "bf16", "compute in float32 what bf16 cannot hold: sums, logarithms, norms (`at_least_float32`)", slow=True
)
def bf16(subject: Subject) -> Iterator[str]:
    """Two steps of example.toml with run.precision = "bf16" have finite numbers."""
    yield from unsteady(steps(build(planned(subject, short(subject, {"run": {"precision": "bf16"}}))), 2))


@check(PLUGIN, "channels", "take the number of channels from what is handed over, and write none down", slow=True)
def channels(subject: Subject) -> Iterator[str]:
    """A step of example.toml works with images of 1, 3 and 5 channels."""
    config = short(subject)
    augmentation = config["augmentation"]
    for name in ("mean", "std"):
        if name in augmentation:
            augmentation[name] = augmentation[name][:1]
    of_data = {c.name for c in subject.plugin.components if c.kind in ("dataset", "placement")}
    if of_data and ((subject.example and subject.example[1].data.component.name in of_data) or "where" in augmentation):
        raise Skip("the example is about its own data")
    for count in CHANNELS:
        config["data"] = {"name": toy.PLANES, "channels": count}
        try:
            yield from unsteady(steps(build(planned(subject, config)), 1))
        except ConfigError as error:
            yield from (f"{count} channels: {problem}" for problem in not_the_users(error))


@check(
    PLUGIN,
    "resume",
    "register what is kept between steps as a buffer; draw from streams, not from a generator of one's own",
    slow=True,
)
def resume(subject: Subject) -> Iterator[str]:
    """The example cut off after three steps and gone on with is the same bit for bit as in one go."""
    yield from differences_of_a_cut(subject, short(subject))


def differences_of_a_cut(subject: Subject, config: dict[str, Any]) -> list[str]:
    """How a run of five steps differs when it is cut off after the third and goes on from its checkpoint at the second. Each config is
    tried once."""
    return subject.once(repr(config), lambda: _differences_of_a_cut(subject, config))


def _differences_of_a_cut(subject: Subject, config: dict[str, Any]) -> list[str]:
    folders = {}
    for name in ("whole", "cut"):
        table = toy.changed(config, {"run": {"steps": 5, "name": name}, "checkpoint": {"every": 2}})
        settings: dict[str, Any] = {"plugins": subject.modules, "out": subject.place}
        if name == "cut":
            try:
                api.run(table, progress=CutAt(3), overwrite=True, **settings)
            except Cut:
                folders[name] = api.run(table, resume=True, **settings).folder
        else:
            folders[name] = api.run(table, overwrite=True, **settings).folder
    (written, kept), (again, restored) = left_by(folders["whole"]), left_by(folders["cut"])
    for kind, some in written.items():
        for one, other in zip(some, again[kind]):
            if names := [name for name in one if one[name] != other.get(name)]:
                at = f"step {one['step']}: {', '.join(names[:3])}"
                return [
                    f"cut off after step 2 and gone on with, {kind} differ at {at} ({one[names[0]]} and {other.get(names[0])})"
                ]
    if apart := [name for name, tensor in kept.items() if not torch.equal(tensor, restored[name])]:
        return [
            f"cut off and gone on with, {len(apart)} tensors of the last checkpoint differ; the first is {apart[0]}"
        ]
    return []


@check(PLUGIN, "processes", "use what `parallelism` gives (`sum`, `gather`, `collect`), and no rank", slow=True)
def processes(subject: Subject) -> Iterator[str]:
    """Two processes (ddp) compute of the example what one does, and hold the same weights afterwards."""
    config = short(subject, EXACT, {"run": {"out": str(subject.place)}})
    yield from differences_of_two(subject, config, "ddp")


def differences_of_two(subject: Subject, config: dict[str, Any], kind: str) -> Iterator[str]:
    """How two processes differ from one. What compares the images of a batch may see each process's own, as it sees micro-batches."""
    names = [module.__name__ for module in subject.modules]
    alone = {n: of_rank(toy.changed(config, {"run": {"accumulation": n}}), names, 2)[0] for n in (1, 2)}
    together = toy.changed(config, {"parallelism": {"name": kind, "processes": 2}})
    try:
        (told, weights), (_, others) = group(2)(
            "dinomx_core.testing.runs:of_rank", together, names, 2, os.getcwd(), sys.path
        )
    except (RuntimeError, TimeoutError) as error:
        yield f"two processes fail: {str(error).strip().splitlines()[-1]}"
        return
    labels = [name for name in told[0] if name.startswith("loss/")]
    like = {n: {name for name in labels if near(told[0][name], alone[n][0][name])} for n in alone}
    for name in labels:
        if name not in like[1] | like[2]:
            one, halves = (alone[n][0][name] for n in alone)
            yield f"step 0: {name} is {told[0][name]:.8g} in two processes, {one:.8g} in one, {halves:.8g} in two micro-batches"
    for n in alone:
        if like[n] == set(labels) and not near(told[1]["loss"], alone[n][1]["loss"]):
            yield f"step 1: the loss is {told[1]['loss']:.8g} in two processes, and {alone[n][1]['loss']:.8g} in one"
            break
    if apart := [name for name in weights if not torch.equal(weights[name], others[name])]:
        yield f"after two steps the processes differ in {len(apart)} of the student's parameters; the first is {apart[0]}"


def near(one: float, other: float) -> bool:
    """Equal but for the order of sums."""
    return math.isclose(one, other, rel_tol=CLOSE, abs_tol=1e-9)
