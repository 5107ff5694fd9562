"""What the commands do, from Python. Importing it imports no torch."""

from __future__ import annotations

import copy
import json
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import attrs

from dinomx_core.artifacts import RunFolder
from dinomx_core.declare.discover import discover
from dinomx_core.errors import ConfigError, Problem
from dinomx_core.folders import find_model, newest_whole
from dinomx_core.planning import document
from dinomx_core.planning.document import to_toml
from dinomx_core.planning.plan import Env, Plan
from dinomx_core.planning.planner import make_plan
from dinomx_core.planning.reader import to_spec
from dinomx_core.planning.resume import changed_versions, differences
from dinomx_core.progress import Progress, Silent

if TYPE_CHECKING:
    from dinomx_core.training.model import Model


@attrs.frozen
class Result:
    """What a finished run leaves: its folder, its export and the last evaluation's figures."""

    folder: Path
    export: Path
    figures: dict[str, float]


def plan(
    config: str | Path | dict[str, Any],
    *,
    overrides: Iterable[str] = (),
    out: str | Path | None = None,
    plugins: Iterable[ModuleType] = (),
    env: Env | None = None,
) -> Plan:
    """Work a config out without running it.

    config: path of a TOML file, or its tables as a dict. overrides: "a.b=VALUE" texts. out: instead of `run.out`.
    plugins: modules of declarations to use beside the installed plugins. Raises ConfigError with every problem found, and for a
    config of several stages (see `plans`).
    """
    made = plans(config, overrides=overrides, out=out, plugins=plugins, env=env)
    if len(made) > 1:
        names = ", ".join(stage.stage for stage in made)
        raise ConfigError([Problem(f"has the stages {names}, each with a plan; use dinomx_core.plans", "stage")])
    return made[0]


def plans(
    config: str | Path | dict[str, Any],
    *,
    overrides: Iterable[str] = (),
    out: str | Path | None = None,
    plugins: Iterable[ModuleType] = (),
    env: Env | None = None,
) -> list[Plan]:
    """The same for a config with or without stages: a plan a stage, in order, each starting from the one before it."""
    registry = discover(plugins)
    overrides = list(overrides)
    text = ""
    if isinstance(config, dict):
        stem, command = "run", 'dinomx_core.run("config.toml")'
        parsed = document.Document(copy.deepcopy(config), {(): "config"})
    else:
        text, stem = document.read_text(Path(config)), Path(config).stem
        command = shlex.join(["dinomx", "run", Path(config).name, *(w for o in overrides for w in ("--set", o))])
        parsed = document.parse(text, str(config))
    settings = [*overrides, *([f"run.out={json.dumps(str(out))}"] if out is not None else [])]
    made: list[Plan] = []
    problems: dict[Problem, list[str]] = {}
    loaded = document.load(parsed, registry, settings)
    for stage, tables in loaded.items():
        run_table = tables.data.setdefault("run", {})
        if isinstance(run_table, dict) and "name" not in run_table:
            tables.data["run"] = {**run_table, "name": stem}
            tables.places["run", "name"] = "default"
        try:
            spec = to_spec(tables, registry)
            if problems:
                continue  # a plan would miss the stage before it
            text = to_toml(config) if isinstance(config, dict) else text
            before = made[-1] if made else None
            made.append(make_plan(spec, tables, env or Env.here(), registry, text, command, stage, before))
        except ConfigError as error:
            for problem in error.problems:
                problems.setdefault(problem, []).append(stage)
    if problems:
        raise ConfigError([in_stages(problem, found, loaded) for problem, found in problems.items()])
    return made


def in_stages(problem: Problem, found: list[str], stages: Iterable[str]) -> Problem:
    """A problem with the stages that have it, where not all do."""
    if found == list(stages):
        return problem
    return attrs.evolve(problem, message=f"{problem.message} (stage {', '.join(found)})")


def run(
    config: str | Path | dict[str, Any] | Plan | list[Plan],
    *,
    overrides: Iterable[str] = (),
    out: str | Path | None = None,
    plugins: Iterable[ModuleType] = (),
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Train. Takes what `plan` takes, or a plan, or a plan a stage; `progress` watches (default: nobody). Returns what the last stage
    leaves.

    resume: go on from the newest whole checkpoint of the run folder, or start where there is none. overwrite: delete a run of
    the same name. Raises ConfigError before anything is built, Stopped after saving when told to stop (a signal,
    `run.max_hours`), TrainingError when the run cannot go on.
    """
    if isinstance(config, Plan):
        stages = [config]
    else:
        stages = config if isinstance(config, list) else plans(config, overrides=overrides, out=out, plugins=plugins)
    watcher = progress or Silent()
    for stage in stages:
        RunFolder.check(stage, overwrite or resume)
    for stage in stages:
        result = run_stage(stage, resume, watcher)
    return result


def run_stage(the_plan: Plan, resume: bool, watcher: Progress) -> Result:
    """Train one plan; what is in its folder is gone on with or deleted."""
    if the_plan.stage:
        watcher.note(f"stage {the_plan.stage}")
    step = resume_step(the_plan, watcher) if resume else None
    if step is not None and is_done(the_plan, step):
        watcher.note(f"done already: {step} steps")
        done = RunFolder(the_plan.run_dir)
        return Result(done.path, done.export, figures_of(done))
    from dinomx_core.training.build import build
    from dinomx_core.training.checkpoint import clear_broken, load_checkpoint
    from dinomx_core.training.export import save_run_export
    from dinomx_core.training.loop import train
    from dinomx_core.training.stopping import StopRequest

    with StopRequest(the_plan.spec.run.max_hours) as stop:
        parts = build(the_plan)
        if step is not None:
            checkpoints = RunFolder(the_plan.run_dir).checkpoints
            load_checkpoint(parts, checkpoints / str(step))
            clear_broken(checkpoints, step)
            watcher.note(f"going on from step {step}")
        # only now: what cannot be built or loaded leaves no trace and deletes no run
        folder = RunFolder.create(the_plan) if step is None else RunFolder.reopen(the_plan, step)
        watcher.start(the_plan)
        try:
            if parts.start and step is None:
                watcher.note(f"start: {parts.start.weights}: {parts.start.report}")
            train(parts, folder, watcher, stop, step or 0)
            save_run_export(parts, folder)
        finally:
            watcher.close()
            folder.close()
            parts.parallelism.close()
    return Result(folder.path, folder.export, figures_of(folder))


def resume_step(the_plan: Plan, watcher: Progress) -> int | None:
    """The step to go on from, or None to start. Raises ConfigError when the plan is not that of the run in its folder."""
    folder = RunFolder(the_plan.run_dir)
    file = folder.path / "plan.json"
    if not file.exists():
        return None
    try:
        saved = json.loads(file.read_text("utf-8"))
        problems = differences(the_plan, saved, str(file))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"cannot be read as a plan ({type(error).__name__}: {error}); start anew with --overwrite"
        raise ConfigError([Problem(message, place=str(file))]) from None
    if problems:
        raise ConfigError(problems)
    step, notes = newest_whole(folder.checkpoints)
    if step is None and notes:
        remedy = "bring one back, or start anew with --overwrite"
        raise ConfigError([Problem(f"no checkpoint is whole; {remedy}: {'; '.join(notes)}", "run.name")])
    for note in notes:
        watcher.note(note)
    if step is not None and step > the_plan.steps:
        message = f"{the_plan.steps} steps, but the run has done {step}; ask for as many or more"
        raise ConfigError([Problem(message, "run.steps")])
    if changed := changed_versions(the_plan, saved):
        watcher.note(f"going on with other versions, so not bit by bit as before: {changed}")
    return step


def is_done(the_plan: Plan, step: int) -> bool:
    """Whether a run has done all its steps and left its export and its last evaluation."""
    folder = RunFolder(the_plan.run_dir)
    evaluated = not the_plan.spec.evaluate or any(row["step"] == step for row in folder.rows("evaluations"))
    return step == the_plan.steps and evaluated and (folder.export / "dinomx.json").exists()


def figures_of(folder: RunFolder) -> dict[str, float]:
    """The newest value of every figure that was evaluated."""
    return {
        name: value
        for row in folder.rows("evaluations")
        for name, value in row.items()
        if name not in ("step", "seconds")
    }


def load(path: str | Path, *, network: str = "teacher", plugins: Iterable[ModuleType] = ()) -> Model:
    """The model of an export, a run folder (its export, or its newest checkpoint while there is none) or a checkpoint.

    network: "teacher" (the moving average) or "student", where a checkpoint is read. Raises DataError when there is no model,
    ConfigError for another network.
    """
    if network not in ("teacher", "student"):
        raise ConfigError([Problem(f'expected teacher or student, got "{network}"', "network")])
    place = find_model(Path(path), network)
    from dinomx_core.training.model import Model

    return Model.open(place, network, discover(plugins))


def export(
    run_dir: str | Path,
    out: str | Path,
    *,
    checkpoint: str = "last",
    network: str = "teacher",
    format: str = "huggingface",
    plugins: Iterable[ModuleType] = (),
) -> dict[str, Any]:
    """Write a checkpoint's backbone as a folder that others open. Returns what was written.

    checkpoint: "last" (the newest whole one), "best", or a step. network: "teacher" or "student". format: "huggingface" or
    "onnx". Raises ConfigError for a checkpoint that is not there, or an `out` that holds something.
    """
    from dinomx_core.training.export import export_checkpoint

    return export_checkpoint(Path(run_dir), Path(out), checkpoint, network, format, discover(plugins))


def convert(source: str | Path, out: str | Path, *, heads: int = 0) -> dict[str, Any]:
    """Write a checkpoint of DINO, DINOv2, DINOv3 or timm as a Hugging Face folder, its projection heads beside it in
    `heads.safetensors`. Returns what was found.

    source: a `.pth`, `.pt`, `.bin` or `.safetensors` file, read as weights alone. heads: attention heads, where they are not of 64
    features. Raises DataError when it is no such file or not every tensor has a place, ConfigError for an `out` that holds something.
    """
    from dinomx_core.builtin import convert as built_in

    return built_in.convert(Path(source), Path(out), heads)


def embed(
    source: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    tokens: str = "cls",
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
    plugins: Iterable[ModuleType] = (),
) -> dict[str, Any]:
    """Write embeddings of images with their ids. Returns counts and shapes.

    source: a run, checkpoint or export, or a config, whose backbone is taken as it starts. data: folder of images. out: a
    `.npz` or `.parquet` file. tokens: "cls", "patch-mean" or "patches". Raises DataError when there is nothing to read.
    """
    from dinomx_core.training.construct import attribute
    from dinomx_core.training.embed import embed_images
    from dinomx_core.training.model import Model

    if Path(source).is_file():
        model = Model.of_plan(plan(source, plugins=plugins))
    else:
        model = load(source, plugins=plugins)
    folder = discover(plugins).find("dataset", "image-folder")
    options = folder.options(path=str(data), channels=3 if model.channels == 3 else 1)
    classes = folder.inspect(options).classes
    return embed_images(model, attribute(folder)(options), classes, Path(out), tokens, batch_size, progress)
