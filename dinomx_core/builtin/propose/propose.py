"""Path and machine -> a config that the plan accepts, written down."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs

from dinomx_core.builtin.propose import choices
from dinomx_core.builtin.propose.choices import Table
from dinomx_core.builtin.propose.found import Found, find
from dinomx_core.builtin.propose.machine import Machine, machine_of
from dinomx_core.builtin.propose.pixels import Looked, look_at
from dinomx_core.builtin.propose.text import literal, toml
from dinomx_core.declare.discover import Registry
from dinomx_core.declare.values import Chosen
from dinomx_core.errors import ConfigError, DataError, Problem
from dinomx_core.planning.convert import choose, make_converter
from dinomx_core.planning.fit import cost_with
from dinomx_core.planning.plan import Env, Plan

LEAST = 4  # images
PASSES, STEPS = (
    100,
    {True: (1000, 50_000), False: (300, 2000)},
)  # passes over the images; fewest and most steps, with a GPU or without
BATCH, SMALLEST = {True: 256, False: 64}, 16
FREE = 0.7  # of the memory, for the plan's estimate
FLOPS = 1e11  # a step and core, at which a CPU's steps take seconds
K = 20


@attrs.frozen
class Asked:
    """What `dinomx init` was told."""

    path: str
    out: Path | None
    steps: int
    domain: str
    overwrite: bool


def propose(asked: Asked, registry: Registry, env: Env | None, plugins: list[ModuleType]) -> dict[str, Any]:
    """Look, decide, plan, write. Raises ConfigError where the file is there already, DataError where nothing can be trained on."""
    out = asked.out or Path(name_of(asked.path) + ".toml")
    if out.exists() and not asked.overwrite:
        raise ConfigError([Problem(f"{out} is there already; --overwrite replaces it, --out names another")])
    env = attrs.evolve(env or Env.here(), world=None)
    machine, found = machine_of(env), find(asked.path, registry)
    found, looked = looked_at(found, registry)
    if looked.info.count < LEAST:
        raise DataError(
            f'"{asked.path}" holds {looked.info.count} image(s); training compares images with each other and needs {LEAST}'
        )
    writer = Writer(asked, registry, env, machine, found, looked)
    text = writer.settled()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, "utf-8")
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror or error}") from None
    return {
        "file": str(out),
        "seen": list(writer.seen()),
        "notes": list(dict.fromkeys((*found.notes, *writer.notes))),
        "text": text,
    }


def name_of(path: str) -> str:
    """A file's name for a config of these images."""
    stem = Path(path.rstrip("/")).expanduser().absolute().name.split(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-") or "run"


def chosen_of(table: dict[str, Any], registry: Registry) -> Chosen:
    """A [data] table as its data set."""
    return choose(make_converter(registry), registry, "dataset", table, "data", None)


def looked_at(found: Found, registry: Registry) -> tuple[Found, Looked]:
    """What is there, looked at; channels that do not fit each other are images of their own, and grey images stay grey."""
    try:
        looked = look_at(chosen_of(found.table, registry), len(found.files))
    except DataError as error:
        if "stack" not in found.table:
            raise
        table = {key: value for key, value in found.table.items() if key != "stack"}
        note = f"the files look like channels of images, but {error}"
        found = attrs.evolve(found, table=table, notes=(*found.notes, note))
        looked = look_at(chosen_of(table, registry), len(found.files))
    if looked.channels == {1} and looked.info.channels == 3:
        found = attrs.evolve(found, table={**found.table, "channels": 1})
        looked = attrs.evolve(looked, info=attrs.evolve(looked.info, channels=1))
    return found, looked


class Writer:
    """Decides, and mends what the plan refuses. What it left out is in `notes`."""

    def __init__(self, asked: Asked, registry: Registry, env: Env, machine: Machine, found: Found, looked: Looked):
        self.asked, self.registry, self.env, self.machine = asked, registry, env, machine
        self.found, self.looked = found, looked
        self.notes: list[str] = []
        self.measured = bool(found.held) and len(looked.info.classes) > 1
        self.batch = self.first_batch()
        if len(looked.info.classes) > 1 and not found.held:
            self.notes.append(
                "there are labels, but no held-out part is known: name one in [evaluate.knn] to see how good features are"
            )
        self.domain, self.why = choices.domain_of(looked, found.reader, asked.domain)

    def first_batch(self) -> int:
        """A power of two, of at most half of the images."""
        batch = BATCH[self.machine.gpu]
        while batch > max(2, self.looked.info.count // 2):
            batch //= 2
        return batch

    def settled(self) -> str:
        """The text once the plan takes it, its batch as large as fits. Raises the plan's ConfigError for what cannot be mended."""
        text = self.text()
        try:
            plan = self.plan(text)
        except ConfigError as error:
            if not self.mended(error):
                raise
            return self.settled()
        batch = self.batch
        while batch > SMALLEST and not self.fits(plan, batch):
            batch //= 2
        if batch == self.batch:
            return text
        self.batch = batch
        return self.settled()

    def mended(self, error: ConfigError) -> bool:
        """Leave out what the plan refuses, where training goes without it."""
        keys = {problem.key for problem in error.problems}
        parts = [
            problem for problem in error.problems if problem.key.startswith("evaluate") or problem.key == "data.part"
        ]
        if self.measured and parts:
            self.measured = False
            self.notes.append(f"no k-NN on held-out images: {parts[0].message}")
            return True
        if "run.batch_size" in keys and self.batch > 2:
            self.batch //= 2
            return True
        return False

    def fits(self, plan: Plan, batch: int) -> bool:
        """Whether the memory is there, and on a CPU the time."""
        fits = cost_with(plan, batch, 1, "none").bytes <= FREE * self.machine.memory
        return fits and (self.machine.gpu or plan.cost.flops * batch / plan.batch.images <= FLOPS * self.machine.cores)

    def plan(self, text: str) -> Plan:
        """The text's plan."""
        from dinomx_core.api import work_out
        from dinomx_core.planning import document
        from dinomx_core.planning.plan import Source

        place = f"{name_of(self.asked.path)}.toml"
        return work_out(document.parse(text, place), Source(text, place, (), ""), self.registry, self.env)[0]

    def text(self) -> str:
        """The config as it stands."""
        size, local, patch = choices.crops_of(self.looked.side, self.machine)
        recipe = choices.recipe_of(self.registry, local)
        intensity, ends, note = choices.intensity_of(self.looked, self.domain, self.registry)
        augmentation, missing = choices.augmentation_of(
            self.domain, self.why, self.looked, size, local, ends, self.registry
        )
        self.notes += [text for text in (note, missing) if text and text not in self.notes]
        tables = [
            self.run(), self.data(), *([intensity] if intensity else []), augmentation,
            choices.backbone_of(recipe, patch, self.machine, self.registry),
            Table("loader", {"workers": max(1, self.machine.cores - 1)}, {"workers": "one core is the training's"}),
        ]  # fmt: skip
        if not local:
            tables.append(Table("loss.dino", {"local_view": ""}))
        if self.measured:
            tables.append(self.knn())
        heading = [
            f"Written by `dinomx init` from {literal(self.asked.path)}: {line}" for line in list(self.seen())[:1]
        ]
        return toml(
            heading, recipe, "self-distillation of class tokens and of masked patches" * ("v2" in recipe), tables
        )

    def run(self) -> Table:
        """Steps, batch, precision."""
        few, most = STEPS[self.machine.gpu]
        steps = self.asked.steps or min(max(PASSES * self.looked.info.count // self.batch, few), most)
        passes = steps * self.batch / self.looked.info.count
        precision = "bf16" if self.machine.bf16 else "float32"
        full = self.batch == BATCH[self.machine.gpu] or 4 * self.batch <= self.looked.info.count
        fits = f"fits this {'GPU' if self.machine.gpu else 'CPU'}" if full else "no more than half of the images"
        where = "GPU with bf16 units" if self.machine.bf16 else "GPU without bf16 units" if self.machine.gpu else "CPU"
        return Table(
            "run", {"steps": steps, "batch_size": self.batch, "precision": precision},
            {"steps": f"about {passes:.3g} passes over the images; longer is better", "batch_size": fits, "precision": where},
        )  # fmt: skip

    def data(self) -> Table:
        """What is trained on."""
        part = self.found.held[0] if self.measured else {}
        why = {
            "part": "a fifth is held out, whole groups (patients) at a time",
            "stack": "a file a channel",
            "channels": "the images are grey",
        }
        return Table("data", {**self.found.table, **part}, why)

    def knn(self) -> Table:
        """k-NN on held-out images."""
        train, test = ({**self.found.table, **part} for part in self.found.held)
        k = max(1, min(K, self.looked.info.count // 10))
        return Table(
            "evaluate.knn",
            {"k": [k], "bank": train, "query": test},
            {"k": "neighbours; tells how good the features are"},
        )

    def seen(self) -> Iterator[str]:
        """What was found, in words."""
        info = self.looked.info
        kind = info.sampled.kind if info.sampled else "uint8"
        units = f" {info.sampled.units}" if info.sampled and info.sampled.units else ""
        what = f"{info.count} images, {self.looked.sizes} px, {info.channels} channel(s), {kind}{units}"
        yield what + (f", {len(info.classes)} classes" if info.classes else "")
        yield f"{self.domain}: {self.why}"
        memory = f"{self.machine.memory / 2**30:.0f} GiB"
        yield f"{self.machine.device} with {memory}, {self.machine.cores} cores"
