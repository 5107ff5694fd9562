"""What `dinomx eval` measures: checkpoints of a run, an export, plain weights, or a config's backbone as it starts. No torch."""

import json
from collections.abc import Callable
from pathlib import Path

import attrs

from dinomx_core.builtin import weights as files
from dinomx_core.declare.discover import Registry
from dinomx_core.declare.facts import BackboneShape, Preprocessing
from dinomx_core.declare.values import Chosen
from dinomx_core.errors import ConfigError, Problem
from dinomx_core.folders import BEST, DESCRIPTION, MANIFEST, fault_of, find_model, newest_whole, steps_in
from dinomx_core.planning.foreign import Foreign, is_foreign, read_foreign
from dinomx_core.planning.origin import Origin, describe, described
from dinomx_core.planning.plan import Plan, units_of

LAST, ALL = "last", "all"


@attrs.frozen
class Subject:
    """A model to measure. `source` says how it is built: a checkpoint or export (at `place`), weights of others, or a plan.

    checkpoint: its name in the run ("40", "best"), "" where it is none; step: after which it was written; run: the run's folder. threads:
    of the run, 0 for all; float64: whether it computes so.
    """

    place: Path
    source: Origin | Foreign | Plan
    channels: int
    shape: BackboneShape
    preprocessing: Preprocessing
    intensity: Chosen
    units: str = ""
    checkpoint: str = ""
    step: int | None = None
    run: Path | None = None
    threads: int = 0
    float64: bool = False
    notes: tuple[str, ...] = ()


def find_subjects(
    path: Path, checkpoint: str, network: str, registry: Registry, plan: Callable[[Path], Plan]
) -> list[Subject]:
    """The models that a path means. `plan` works out a config. Raises ConfigError and DataError where it means none."""
    if network not in ("teacher", "student"):
        raise ConfigError([Problem(f'expected teacher or student, got "{network}"', "--network")])
    if (path / "checkpoints").is_dir():
        places = checkpoints_of(path, checkpoint)
        there = [found for found in places if network == "teacher" or any(found[0].glob("student*.safetensors"))]
        if not there:
            raise ConfigError([Problem(f"{places[0][0]} holds the teacher only", "--network")])
        return [of_folder(place, registry, notes) for place, notes in there]
    if checkpoint != LAST:
        raise ConfigError([Problem(f"{path} is no run folder with checkpoints; leave it out", "--checkpoint")])
    foreign, config = is_foreign(path), path.is_file() and path.suffix not in files.FILES
    place = path if foreign or config else find_model(path, network)
    if network == "student" and not (place / MANIFEST).is_file():
        raise ConfigError([Problem(f"{path} holds one network; only checkpoints have a student", "--network")])
    if config:
        return [of_plan(path, plan(path))]
    return [of_weights(path, registry) if foreign else of_folder(place, registry, ())]


def checkpoints_of(run: Path, wanted: str) -> list[tuple[Path, tuple[str, ...]]]:
    """Places of "last" (the newest whole one), "best", a step, or "all" that are kept, oldest first, and what to say of others. Raises
    ConfigError naming what there is."""
    folder = run / "checkpoints"
    there = [str(step) for step in steps_in(folder)] + ([BEST] if (folder / BEST).is_dir() else [])
    if wanted == LAST:
        step, notes = newest_whole(folder)
        if step is None:
            raise ConfigError([Problem("; ".join(notes) or f"{folder} holds none yet", "--checkpoint")])
        return [(folder / str(step), tuple(notes))]
    if wanted != ALL:
        if wanted not in there:
            raise ConfigError([Problem(f'no checkpoint "{wanted}"; there are: {", ".join(there)}', "--checkpoint")])
        return [(folder / wanted, ())]
    faults = {name: fault_of(folder / name) for name in there}
    whole = [name for name in there if not faults[name]]
    lost = tuple(f"checkpoint {folder / name} is left out: {fault}" for name, fault in faults.items() if fault)
    if BEST in whole and str(step_of(folder / BEST)) in whole:
        whole.remove(BEST)  # the same weights
    if not whole:
        raise ConfigError([Problem("; ".join(lost) or f"{folder} holds none yet", "--checkpoint")])
    whole.sort(key=lambda name: step_of(folder / name) or 0)
    return [(folder / name, lost if name == whole[0] else ()) for name in whole]


def step_of(place: Path) -> int | None:
    """After which step a checkpoint was written; None for what is none."""
    file = place / MANIFEST
    return json.loads(file.read_text("utf-8"))["step"] if file.is_file() else None


def of_folder(place: Path, registry: Registry, notes: tuple[str, ...]) -> Subject:
    """A checkpoint or an export. Raises DataError where it cannot be read."""
    origin, intensity = describe(place, registry), described(place, "intensity", registry)
    about = json.loads((place / DESCRIPTION).read_text("utf-8"))
    how, step, whole = about["preprocessing"], step_of(place), place.absolute()
    run = whole.parent.parent if step is not None and whole.parent.name == "checkpoints" else None
    if whole.name == "export" and (whole.parent / "checkpoints").is_dir():
        run = whole.parent
    return Subject(
        place, origin, origin.channels, origin.backbone,
        Preprocessing(how["resize"], how["crop"], tuple(how["mean"]), tuple(how["std"])), intensity, about.get("units", ""),
        "" if step is None else place.name, step, run, threads_of(run), about["run"]["precision"] == "float64", notes,
    )  # fmt: skip


def threads_of(run: Path | None) -> int:
    """CPU threads that a run was told to take: how a product is divided over them changes its last bits."""
    file = run / "plan.json" if run else None
    if file is None or not file.is_file():
        return 0
    return json.loads(file.read_text("utf-8"))["values"].get("run.threads", {}).get("value", 0)


def of_weights(path: Path, registry: Registry) -> Subject:
    """Weights of others. Raises DataError where nothing reads them."""
    found = read_foreign(path, registry)
    return Subject(
        path, found, found.shape.channels, found.shape, found.preprocessing, found.intensity, notes=found.notes
    )


def of_plan(path: Path, plan: Plan) -> Subject:
    """A config's backbone as training would start from it."""
    spec = plan.spec
    return Subject(
        path, plan, plan.data.channels, plan.backbone, plan.preprocessing, spec.intensity, units_of(plan), threads=spec.run.threads,
        float64=spec.run.precision == "float64",
    )  # fmt: skip
