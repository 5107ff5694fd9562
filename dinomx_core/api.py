"""What the commands do, from Python. Importing it imports no torch."""

from __future__ import annotations

import copy
import json
import os
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import attrs

from dinomx_core.api_data import init, measure, pack
from dinomx_core.api_eval import evaluate
from dinomx_core.api_sweep import compare, sweep
from dinomx_core.artifacts import RunFolder
from dinomx_core.declare.discover import Registry, discover
from dinomx_core.errors import ConfigError, Problem
from dinomx_core.folders import find_model
from dinomx_core.planning import document
from dinomx_core.planning.document import to_toml
from dinomx_core.planning.foreign import is_foreign, read_foreign
from dinomx_core.planning.origin import Reading, data_reading, described_reading
from dinomx_core.planning.plan import Env, Plan, Source
from dinomx_core.planning.planner import make_plan
from dinomx_core.planning.reader import to_spec
from dinomx_core.progress import Progress, Silent
from dinomx_core.running import Result, figures_of, run_here

__all__ = [
    "compare", "convert", "embed", "evaluate", "export", "init", "load", "measure", "pack", "plan", "plans", "run", "sweep",
]  # fmt: skip

if TYPE_CHECKING:
    from dinomx_core.training.model import Model


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
    settings = (*overrides, *([f"run.out={json.dumps(str(out))}"] if out is not None else []))
    if isinstance(config, dict):
        parsed = document.Document(copy.deepcopy(config), {(): "config"})
        return work_out(parsed, Source("", "config", settings, 'dinomx_core.run("config.toml")'), registry, env)
    command = shlex.join(["dinomx", "run", Path(config).name, *(w for o in overrides for w in ("--set", o))])
    source = Source(document.read_text(Path(config)), str(config), settings, command)
    return work_out(document.parse(source.text, source.place), source, registry, env)


def plans_of(source: Source, plugins: Iterable[ModuleType] = ()) -> list[Plan]:
    """A plan a stage of a config that was read before."""
    registry = discover(plugins)
    return work_out(document.parse(source.text, source.place), source, registry, None)


def work_out(parsed: document.Document, source: Source, registry: Registry, env: Env | None) -> list[Plan]:
    """A plan a stage of a document that was read from `source`; without a text there, it is written as TOML once it is known to be
    good. Raises ConfigError with every problem found."""
    made: list[Plan] = []
    problems: dict[Problem, list[str]] = {}
    stem = Path(source.place).stem if source.text else "run"
    plain = parsed.data
    loaded = document.load(parsed, registry, list(source.settings))
    for stage, tables in loaded.items():
        run_table = tables.data.setdefault("run", {})
        if isinstance(run_table, dict) and "name" not in run_table:
            tables.data["run"] = {**run_table, "name": stem}
            tables.places["run", "name"] = "default"
        try:
            spec = to_spec(tables, registry)
            if problems:
                continue  # a plan would miss the stage before it
            source = source if source.text else attrs.evolve(source, text=to_toml(plain))
            before = made[-1] if made else None
            made.append(make_plan(spec, tables, env or Env.here(), registry, source, stage, before))
        except ConfigError as error:
            for problem in error.problems:
                problems.setdefault(problem, []).append(stage)
    if problems:
        raise ConfigError([in_stages(problem, found, loaded) for problem, found in problems.items()])
    return made


def in_stages(problem: Problem, found: list[str], stages: Iterable[str], what: str = "stage") -> Problem:
    """A problem with the stages, or what else they are called, that have it, where not all do."""
    if found == list(stages):
        return problem
    return attrs.evolve(problem, message=f"{problem.message} ({what} {', '.join(found)})")


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
    world = stages[0].env.world
    if stages[0].batch.world_size > 1 and world is None:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch's remarks would be printed by each process
        from dinomx_core.training.launch import launch

        for stage in stages:
            RunFolder.check(stage, overwrite or resume)
        launch(stages[0], overwrite, resume, quiet=isinstance(watcher, Silent))
        done = RunFolder(stages[-1].run_dir)
        return Result(done.path, done.export, figures_of(done))
    if world is None or world.size == 1:
        return run_here(stages, resume, overwrite, watcher)
    from dinomx_core.training.group import no_group_left
    from dinomx_core.training.watch import watched

    with no_group_left(), watched(world, None):
        again = world.attempt > 0
        return run_here(stages, resume or again, overwrite and not again, Silent() if world.rank else watcher)


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
    batch_size: int = 0,
    processes: int = 1,
    shard_size: int = 0,
    overwrite: bool = False,
    path_column: str = "",
    pool: str = "",
    progress: Callable[[int, int], None] | None = None,
    plugins: Iterable[ModuleType] = (),
) -> dict[str, Any]:
    """Write embeddings of images with their ids. Returns counts and shapes.

    source: a run, checkpoint or export, weights that a backbone reads, or a config, whose backbone is taken as it starts. data: folder of
    images, or a manifest (`.csv`, `.jsonl`, `.parquet`) with the images' paths in `path_column` ("": "path"). out: a `.npz` or `.parquet`
    file, or a folder of shards of `shard_size` images (0: 10,000), which goes on with what is there unless told to `overwrite`. tokens:
    "cls", "patch-mean" or "patches". batch_size: images a forward pass; 0: 64 on a GPU, 16 on a CPU, where each thread has a pass of its
    own. processes: to start on this machine; under torchrun or srun each process calls this and does its share. pool: a column; the mean
    over each of its values is written too, or alone where `out` is a file. progress: called with the images done and their number.

    The result has "images" (that were read), "shape", "unreadable", "pooled", "notes" (what to say of how weights of others were opened),
    and "finished": False where other processes still have shards to write. Raises DataError when there is nothing to read, ConfigError
    for a folder of other embeddings, Stopped when told to stop.
    """
    plugins = list(plugins)
    foreign = read_foreign(Path(source), discover(plugins)) if is_foreign(Path(source)) else None
    if processes > 1:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch's remarks would be printed by each process
        if not foreign:  # and what is wrong with the source told by each
            plan_alone(source, plugins) if Path(source).is_file() else find_model(Path(source), "teacher")
    from dinomx_core.training.embed.job import EmbedJob
    from dinomx_core.training.embed.share import Source as Embedder
    from dinomx_core.training.embed.start import embed as start

    job = EmbedJob(str(source), str(data), str(out), tokens, batch_size, shard_size, overwrite, path_column, pool)
    modules = [plugin.__name__ for plugin in plugins]
    opened = Embedder(lambda: reading_of(source, plugins), lambda: model_of(source, plugins))
    return {**start(job, opened, processes, modules, progress), "notes": list(foreign.notes) if foreign else []}


def model_of(source: str | Path, plugins: Iterable[ModuleType] = ()) -> Model:
    """What `load` opens, weights that a backbone reads, or the backbone of a config as it starts. Raises DataError, ConfigError."""
    if not (foreign := is_foreign(Path(source))) and not Path(source).is_file():
        return load(source, plugins=plugins)
    from dinomx_core.training.model import Model

    if foreign:
        return Model.of_weights(read_foreign(Path(source), discover(plugins)))
    return Model.of_plan(plan_alone(source, plugins))


def reading_of(source: str | Path, plugins: Iterable[ModuleType] = ()) -> Reading:
    """How files become images of the kind that a model was trained on, or that a config's data are. Raises DataError."""
    if is_foreign(Path(source)):
        return read_foreign(Path(source), discover(plugins)).reading
    if Path(source).is_file():
        found = plan_alone(source, plugins)
        return data_reading(found.spec, found.registry)
    return described_reading(find_model(Path(source), "teacher"), discover(plugins))


def plan_alone(config: str | Path, plugins: Iterable[ModuleType]) -> Plan:
    """The plan of a config as if no other process were there: those that embed form no group. Raises ConfigError, for one of several
    stages, too."""
    made = plans(config, plugins=plugins, env=attrs.evolve(Env.here(), world=None))
    if len(made) > 1:
        names = ", ".join(stage.stage for stage in made)
        remedy = f"run it and name a stage's folder, such as {made[-1].run_dir}"
        raise ConfigError(
            [Problem(f"{config}: has the stages {names}, each with a model of its own; {remedy}", "stage")]
        )
    return made[0]
