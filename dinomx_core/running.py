"""Training what was planned, in this process: going on with a run, starting one, and what it leaves."""

import json
from pathlib import Path

import attrs

from dinomx_core.artifacts import RunFolder
from dinomx_core.errors import ConfigError, Problem
from dinomx_core.folders import newest_whole
from dinomx_core.planning.plan import Plan
from dinomx_core.planning.resume import changed_versions, differences
from dinomx_core.progress import Progress


@attrs.frozen
class Result:
    """What a finished run leaves: its folder, its export and the last evaluation's figures."""

    folder: Path
    export: Path
    figures: dict[str, float]


def run_here(stages: list[Plan], resume: bool, overwrite: bool, progress: Progress) -> Result:
    """Train in this process, which may be one of several."""
    if not stages[0].env.world or stages[0].env.world.rank == 0:
        for stage in stages:
            RunFolder.check(stage, overwrite or resume)
    for stage in stages:
        result = run_stage(stage, resume, progress)
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
    from dinomx_core.training.report.record import recorded
    from dinomx_core.training.stopping import StopRequest

    with StopRequest(the_plan.spec.run.max_hours) as stop:
        parts = build(the_plan)
        first = parts.parallelism.rank == 0
        if step is not None:
            checkpoints = RunFolder(the_plan.run_dir).checkpoints
            load_checkpoint(parts, checkpoints / str(step))
            if first:
                clear_broken(checkpoints, step)
            watcher.note(f"going on from step {step}")
        # only now: what cannot be built or loaded leaves no trace and deletes no run
        parts.parallelism.barrier()
        if first:
            folder = RunFolder.create(the_plan) if step is None else RunFolder.reopen(the_plan, step)
        else:
            folder = RunFolder(the_plan.run_dir, writes=False)
        parts.parallelism.barrier()
        watcher.start(the_plan)
        try:
            if parts.start and step is None:
                watcher.note(f"start: {parts.start.weights}: {parts.start.report}")
            with recorded(parts, folder, step or 0, watcher.note) as record:
                train(parts, folder, watcher, stop, step or 0, record)
                if first:
                    save_run_export(parts, folder)
                parts.parallelism.barrier()
        finally:
            watcher.close()
            folder.close()
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
        watcher.note(f"going on with changes, so not bit by bit as before: {changed}")
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
