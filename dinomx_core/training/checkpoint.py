"""Checkpoints: safetensors and JSON, written beside their place, synced, and moved there whole with a manifest of checksums."""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from dinomx_core.artifacts import RunFolder
from dinomx_core.declare.discover import Registry
from dinomx_core.errors import ConfigError, DataError, Problem
from dinomx_core.training.build import Parts
from dinomx_core.training.export import DESCRIPTION, FORMATS, description, write_export

MANIFEST, STATE = "manifest.json", "state.json"
BEST = "best"


def write_folder(place: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a draft folder, sync it, then move it to its place: a reader, or a crash, finds all of it or nothing.
    Raises DataError when the place cannot be written to."""
    recover(place)
    draft, old = leftovers(place)
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        write(draft)
        for path in (*(p for p in draft.rglob("*") if p.is_file()), draft):
            sync(path)
        if place.exists():
            os.replace(place, old)
        os.replace(draft, place)
        sync(place.parent)
    except OSError as error:
        raise DataError(f"{place}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def leftovers(place: Path) -> tuple[Path, Path]:
    """Where a folder is drafted, and where the one it replaces waits for a moment."""
    return place.with_name(f".{place.name}.draft"), place.with_name(f".{place.name}.old")


def recover(place: Path) -> None:
    """Undo what a crash between the two moves of `write_folder` left."""
    _, old = leftovers(place)
    if old.exists() and not place.exists():
        os.replace(old, place)
    shutil.rmtree(old, ignore_errors=True)


def sync(path: Path) -> None:
    """Make a file's bytes, or a folder's names, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """`facts`, and size and SHA-256 of every file in the folder."""
    files = {}
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        with path.open("rb") as file:
            files[path.name] = {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    (folder / MANIFEST).write_text(json.dumps({**facts, "files": files}, indent=1) + "\n", "utf-8")


def fault_of(folder: Path) -> str:
    """What is wrong with a checkpoint's files, or "". Raises DataError where the disk does not let them be read: they may be whole."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        for name, wanted in manifest["files"].items():
            path = folder / name
            if not path.exists():
                return f"{name} is missing"
            if path.stat().st_size != wanted["bytes"]:
                return f"{name} has {path.stat().st_size} bytes, not {wanted['bytes']}"
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != wanted["sha256"]:
                    return f"{name} is not what was written (its SHA-256 differs)"
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be read ({error})"
    return ""


def steps_in(checkpoints: Path) -> list[int]:
    """Steps that there are checkpoints of, whole or not, newest first."""
    names = (path.name for path in checkpoints.iterdir()) if checkpoints.is_dir() else ()
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


def newest_whole(checkpoints: Path) -> tuple[int | None, list[str]]:
    """The newest step whose checkpoint is whole, and what to say of the newer ones that are not."""
    notes: list[str] = []
    for step in steps_in(checkpoints):
        fault = fault_of(checkpoints / str(step))
        if not fault:
            return step, notes
        notes.append(f"checkpoint {checkpoints / str(step)} is left out: {fault}")
    return None, notes


def tensors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """A module's state as safetensors takes it: contiguous, on the CPU."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}


def save_checkpoint(parts: Parts, checkpoints: Path, step: int) -> None:
    """Everything that training changed, after `step` steps: student, teacher, losses, optimiser. Then drop old ones."""

    def write(draft: Path) -> None:
        for name, module in modules_of(parts).items():
            save_file(tensors_of(module), draft / f"{name}.safetensors")
        save_file(dict(optimizer_tensors(parts)), draft / "optimizer.safetensors")
        state = {"step": step, "scaler": parts.optimizer.scaler.state_dict(), "left_out": parts.optimizer.left_out}
        (draft / STATE).write_text(json.dumps(state) + "\n", "utf-8")
        (draft / DESCRIPTION).write_text(json.dumps(description(parts), indent=1) + "\n", "utf-8")
        write_manifest(draft, {"step": step})

    write_folder(checkpoints / str(step), write)
    plan = parts.plan
    every = plan.lengths["checkpoint.keep_every"]
    # A later one was not whole, and is made again: it must not count.
    earlier = [other for other in steps_in(checkpoints) if other <= step]
    for old in earlier[plan.spec.checkpoint.keep_last :]:
        if not every or old % every:
            shutil.rmtree(checkpoints / str(old))


def clear_broken(checkpoints: Path, step: int) -> None:
    """Take out what a run that goes on from `step` makes again: later checkpoints, none of them whole, and drafts."""
    for place in list(checkpoints.iterdir()):
        if place.name.startswith(".") and place.name.endswith(".old"):
            recover(checkpoints / place.name[1:-4])
        elif place.name.startswith(".") or (place.name.isdecimal() and int(place.name) > step):
            shutil.rmtree(place)


def modules_of(parts: Parts) -> dict[str, nn.Module]:
    """What has weights, by the name of its file."""
    modules: dict[str, nn.Module] = {"student": parts.student, "losses": nn.ModuleDict(parts.losses)}
    if parts.teacher.network is not parts.student:
        modules["teacher"] = parts.teacher.network
    return modules


def load_checkpoint(parts: Parts, folder: Path) -> None:
    """Put a checkpoint's state into freshly built parts. Raises DataError when it does not fit them."""
    try:
        for name, module in modules_of(parts).items():
            module.load_state_dict(load_file(folder / f"{name}.safetensors"))
        saved = load_file(folder / "optimizer.safetensors")
        state = json.loads((folder / STATE).read_text("utf-8"))
        for parameter, name in optimized(parts):
            keys = ("step", "exp_avg", "exp_avg_sq")
            if f"{name}/step" in saved:  # a parameter that never had a gradient has no moments
                parts.optimizer.adamw.state[parameter] = {
                    key: saved[f"{name}/{key}"].to(parameter.device, copy=True) for key in keys
                }
    except (OSError, RuntimeError, KeyError, ValueError, SafetensorError) as error:
        raise DataError(f"{folder}: does not fit this run: {str(error).strip().partition(chr(10))[0]}") from None
    if state["scaler"]:
        parts.optimizer.scaler.load_state_dict(state["scaler"])
    parts.optimizer.left_out = state["left_out"]


def optimized(parts: Parts) -> Iterator[tuple[nn.Parameter, str]]:
    """Every parameter that the optimiser may hold moments of, with its name."""
    modules: dict[str, nn.Module] = {
        "student": parts.student,
        **{f"losses.{label}": loss for label, loss in parts.losses.items()},
    }
    for prefix, module in modules.items():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                yield parameter, f"{prefix}.{name}"


def optimizer_tensors(parts: Parts) -> Iterator[tuple[str, torch.Tensor]]:
    """AdamW's moments by parameter name."""
    for parameter, name in optimized(parts):
        for key, value in parts.optimizer.adamw.state.get(parameter, {}).items():
            yield f"{name}/{key}", torch.as_tensor(value).detach().cpu().contiguous()


def save_best(parts: Parts, checkpoints: Path, step: int, figure: str, value: float) -> bool:
    """Keep the teacher's backbone in `best/` if `value` is above that of the one there, or of another figure. Returns whether."""
    place = checkpoints / BEST
    recover(place)
    if not math.isfinite(value):
        return False
    if not fault_of(place):
        kept = json.loads((place / MANIFEST).read_text("utf-8"))
        if kept["figure"] == figure and kept["value"] >= value:
            return False

    def write(draft: Path) -> None:
        backbone = nn.ModuleDict({"backbone": parts.teacher.network.backbone})
        save_file(tensors_of(backbone), draft / "teacher.safetensors")
        (draft / DESCRIPTION).write_text(json.dumps(description(parts), indent=1) + "\n", "utf-8")
        write_manifest(draft, {"step": step, "figure": figure, "value": value})

    write_folder(place, write)
    return True


def save_run_export(parts: Parts, folder: RunFolder) -> None:
    """The teacher's backbone, as the run ends, in `export/`."""
    backbone, evaluations = parts.teacher.network.backbone, folder.rows("evaluations")
    about = {**description(parts), "network": "teacher", "step": parts.plan.steps}
    write_folder(folder.export, lambda draft: write_export(draft, backbone, about, evaluations))


def export_checkpoint(
    run_dir: Path, out: Path, checkpoint: str, network: str, form: str, registry: Registry
) -> dict[str, Any]:
    """See `api.export`."""
    from dinomx_core.training.model import Model

    choices = {"network": (network, ("teacher", "student")), "format": (form, tuple(FORMATS))}
    for name, (given, known) in choices.items():
        if given not in known:
            raise ConfigError([Problem(f'expected one of {", ".join(known)}, got "{given}"', f"--{name}")])
    place = find_checkpoint(run_dir, checkpoint)
    if fault := fault_of(place):
        raise DataError(f"{place}: {fault}; choose another checkpoint")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError([Problem(f"{out} holds something already; choose another")])
    if place.parent.resolve() in out.resolve().parents:
        raise ConfigError([Problem(f"{out} is among the run's checkpoints; choose another place")])
    model = Model.open(place, network, registry)
    step = json.loads((place / MANIFEST).read_text("utf-8"))["step"]
    about = {**model.about, "network": network, "step": step}
    evaluations = [row for row in RunFolder(run_dir).rows("evaluations") if row["step"] <= step]
    differences: list[float | None] = []
    write_folder(
        out.absolute(), lambda draft: differences.append(FORMATS[form](draft, model.backbone, about, evaluations))
    )
    return {"folder": out, "checkpoint": place, "network": network, "step": step, "difference": differences[0]}


def find_checkpoint(run_dir: Path, checkpoint: str) -> Path:
    """The folder of "last", "best" or a step. Raises ConfigError naming what there is."""
    checkpoints = RunFolder(run_dir).checkpoints
    if not checkpoints.is_dir():
        raise ConfigError([Problem(f"{run_dir} is no run folder with checkpoints")])
    if checkpoint == "last":
        step, notes = newest_whole(checkpoints)
        if step is None:
            raise ConfigError([Problem("; ".join(notes) or f"{checkpoints} holds none yet", "--checkpoint")])
        checkpoint = str(step)
    place = checkpoints / checkpoint
    if not place.is_dir():
        there = [str(step) for step in steps_in(checkpoints)] + ([BEST] if (checkpoints / BEST).is_dir() else [])
        raise ConfigError([Problem(f'no checkpoint "{checkpoint}"; there are: {", ".join(there)}', "--checkpoint")])
    return place
