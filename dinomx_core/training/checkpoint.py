"""Checkpoints: safetensors and JSON, written beside their place, synced, and moved there whole with a manifest of checksums."""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from dinomx_core.errors import DataError
from dinomx_core.folders import (
    BASE,
    BASE_STATE,
    BEST,
    DESCRIPTION,
    MANIFEST,
    fault_of,
    leftovers,
    recover,
    steps_in,
    write_folder,
    write_manifest,
)
from dinomx_core.training.build import Parts
from dinomx_core.training.contracts import Parallelism
from dinomx_core.training.export import description
from dinomx_core.training.shards import State, fill, write_state

STATE = "state.json"
MOMENTS = ("exp_avg", "exp_avg_sq")


def state_of(parts: Parts, module: nn.Module) -> dict[str, torch.Tensor]:
    """A module's state without the parameters that never train."""
    still = {id(parameter) for parameter in parts.base.values()}
    left_out = {name for name, parameter in module.named_parameters() if id(parameter) in still}
    return {name: tensor for name, tensor in module.state_dict().items() if name not in left_out}


def digest(tensors: Mapping[str, torch.Tensor], parallelism: Parallelism) -> str:
    """SHA-256 of tensors with their names, types and shapes, the same however they are divided."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        whole = parallelism.whole(tensor)
        if parallelism.rank == 0:
            whole = whole.cpu().contiguous()
            found.update(f"{name} {whole.dtype} {list(whole.shape)}".encode())
            found.update(whole.flatten().view(torch.uint8).numpy())
    return parallelism.collect(found.hexdigest())[0]


def digests_of(parts: Parts) -> dict[str, str]:
    """Digests of what the run never changes: parameters that never train, as "base", and networks of other shapes."""
    if parts.base and "base" not in parts.digests:
        parts.digests["base"] = digest(parts.base, parts.parallelism)
    for further in parts.plan.networks:
        name = further.network.name
        if further.network.foreign and name not in parts.digests:
            parts.digests[name] = digest(parts.further[name].state_dict(), parts.parallelism)
    return parts.digests


def write_together(
    place: Path, parallelism: Parallelism, write: Callable[[Path], None], finish: Callable[[Path], None]
) -> None:
    """Write a folder whole or not at all, each process what is its own, and the first one what is written when all of them have done.
    Raises DataError when the place cannot be written to, or is not the same folder for all of them."""

    def first(draft: Path) -> None:
        parallelism.barrier()
        write(draft)
        parallelism.barrier()
        finish(draft)

    if parallelism.rank == 0:
        write_folder(place, first)
    else:
        draft, _ = leftovers(place)
        parallelism.barrier()
        if not draft.is_dir():
            raise DataError(f"{draft}: is not there; run.out must be on a disk that all hosts share")
        write(draft)
        parallelism.barrier()
    parallelism.barrier()


def save_base(parts: Parts, checkpoints: Path) -> dict[str, Any]:
    """Write what never trains, unless it is there and whole. Returns what manifests of checkpoints say of its files."""
    if not parts.base:
        return {}
    place, parallelism = checkpoints / BASE, parts.parallelism
    if parallelism.rank == 0:
        recover(place)
    if parallelism.collect(parallelism.rank == 0 and bool(fault_of(place)))[0]:
        write_together(
            place,
            parallelism,
            lambda draft: write_state(draft, BASE_STATE, parts.base, parallelism),
            lambda draft: write_manifest(draft, {}),
        )
    files = json.loads((place / MANIFEST).read_text("utf-8"))["files"]
    return {f"../{BASE}/{name}": found for name, found in files.items()}


def save_checkpoint(parts: Parts, checkpoints: Path, step: int) -> None:
    """Everything that training changed, after `step` steps: student, teacher, losses, optimiser. Then drop old ones."""
    base, digests = save_base(parts, checkpoints), digests_of(parts)

    def write(draft: Path) -> None:
        for name, module in modules_of(parts).items():
            write_state(draft, name, state_of(parts, module), parts.parallelism)
        write_state(draft, "optimizer", dict(optimizer_tensors(parts)), parts.parallelism)

    def finish(draft: Path) -> None:
        state = {"step": step, "scaler": parts.optimizer.scaler.state_dict(), "left_out": parts.optimizer.left_out}
        (draft / STATE).write_text(json.dumps(state) + "\n", "utf-8")
        (draft / DESCRIPTION).write_text(json.dumps(description(parts), indent=1) + "\n", "utf-8")
        write_manifest(draft, {"step": step, "digests": digests}, base)

    write_together(checkpoints / str(step), parts.parallelism, write, finish)
    if parts.parallelism.rank:
        return
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
    foreign = {further.network.name for further in parts.plan.networks if further.network.foreign}
    modules.update({name: network for name, network in parts.further.items() if name not in foreign})
    return modules


def load_checkpoint(parts: Parts, folder: Path) -> None:
    """Put a checkpoint's state into freshly built parts, however many processes wrote it. Raises DataError when it does not fit them."""
    try:
        for name, module in modules_of(parts).items():
            with State(folder, name) as saved:
                ours, all_of_it = state_of(parts, module), module.state_dict()
                if missing := sorted(ours.keys() - saved.shapes.keys()):
                    raise KeyError(missing[0])
                if unexpected := sorted(saved.shapes.keys() - all_of_it.keys()):
                    raise KeyError(unexpected[0])
                fill(ours, saved, parts.parallelism)
        state = json.loads((folder / STATE).read_text("utf-8"))
        with State(folder, "optimizer") as saved:
            for parameter, name in optimized(parts):
                if f"{name}/step" in saved.shapes:  # a parameter that never had a gradient has no moments
                    moments = {f"{name}/{key}": torch.zeros_like(parameter) for key in MOMENTS}
                    fill(moments, saved, parts.parallelism)
                    count = saved.read(f"{name}/step").to(parameter.device)
                    parts.optimizer.adamw.state[parameter] = {"step": count, **dict(zip(MOMENTS, moments.values()))}
    except (OSError, RuntimeError, KeyError, ValueError, SafetensorError) as error:
        raise DataError(f"{folder}: does not fit this run: {str(error).strip().partition(chr(10))[0]}") from None
    theirs = json.loads((folder / MANIFEST).read_text("utf-8"))["digests"]
    for name, found in digests_of(parts).items():
        if theirs.get(name) != found:
            what = "the parameters that never train are" if name == "base" else f'the network "{name}" is'
            raise DataError(
                f"{folder}: {what} not what the run began with; bring the weights that it started from back"
            )
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
            yield f"{name}/{key}", torch.as_tensor(value)


def save_best(parts: Parts, checkpoints: Path, step: int, figure: str, value: float) -> bool:
    """Keep the teacher's backbone in `best/` if `value` is above that of the one there, or of another figure. Returns whether."""
    place, parallelism = checkpoints / BEST, parts.parallelism
    if not math.isfinite(value):
        return False
    base, digests = save_base(parts, checkpoints), digests_of(parts)
    better = True
    if parallelism.rank == 0:
        recover(place)
        if not fault_of(place):
            kept = json.loads((place / MANIFEST).read_text("utf-8"))
            better = kept["figure"] != figure or kept["value"] < value
    if not parallelism.collect(better)[0]:
        return False

    def write(draft: Path) -> None:
        backbone = nn.ModuleDict({"backbone": parts.teacher.network.backbone})
        write_state(draft, "teacher", state_of(parts, backbone), parallelism)

    def finish(draft: Path) -> None:
        (draft / DESCRIPTION).write_text(json.dumps(description(parts), indent=1) + "\n", "utf-8")
        write_manifest(draft, {"step": step, "figure": figure, "value": value, "digests": digests}, base)

    write_together(place, parallelism, write, finish)
    return True
