"""Checkpoints: safetensors and JSON, written beside their place, synced, and moved there whole with a manifest of checksums."""

import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from dinomx_core.errors import DataError
from dinomx_core.folders import (
    BASE,
    BASE_FILE,
    BEST,
    DESCRIPTION,
    MANIFEST,
    fault_of,
    recover,
    steps_in,
    write_folder,
    write_manifest,
)
from dinomx_core.training.build import Parts
from dinomx_core.training.export import description

STATE = "state.json"


def plain(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors as safetensors takes them: contiguous, on the CPU."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def state_of(parts: Parts, module: nn.Module) -> dict[str, torch.Tensor]:
    """A module's state without the parameters that never train."""
    still = {id(parameter) for parameter in parts.base.values()}
    left_out = {name for name, parameter in module.named_parameters() if id(parameter) in still}
    return {name: tensor for name, tensor in module.state_dict().items() if name not in left_out}


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of tensors with their names, types and shapes."""
    found = hashlib.sha256()
    for name, tensor in sorted(plain(tensors).items()):
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        found.update(tensor.flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def digests_of(parts: Parts) -> dict[str, str]:
    """Digests of what the run never changes: parameters that never train, as "base", and networks of other shapes."""
    if parts.base and "base" not in parts.digests:
        parts.digests["base"] = digest(parts.base)
    for further in parts.plan.networks:
        name = further.network.name
        if further.network.foreign and name not in parts.digests:
            parts.digests[name] = digest(parts.further[name].state_dict())
    return parts.digests


def save_base(parts: Parts, checkpoints: Path) -> dict[str, Any]:
    """Write what never trains, unless it is there and whole. Returns what manifests of checkpoints say of its file."""
    if not parts.base:
        return {}
    place = checkpoints / BASE
    recover(place)

    def write(draft: Path) -> None:
        save_file(plain(parts.base), draft / Path(BASE_FILE).name)
        write_manifest(draft, {})

    if fault_of(place):
        write_folder(place, write)
    files = json.loads((place / MANIFEST).read_text("utf-8"))["files"]
    return {f"../{BASE}/{name}": found for name, found in files.items()}


def save_checkpoint(parts: Parts, checkpoints: Path, step: int) -> None:
    """Everything that training changed, after `step` steps: student, teacher, losses, optimiser. Then drop old ones."""
    base = save_base(parts, checkpoints)

    def write(draft: Path) -> None:
        for name, module in modules_of(parts).items():
            save_file(plain(state_of(parts, module)), draft / f"{name}.safetensors")
        save_file(dict(optimizer_tensors(parts)), draft / "optimizer.safetensors")
        state = {"step": step, "scaler": parts.optimizer.scaler.state_dict(), "left_out": parts.optimizer.left_out}
        (draft / STATE).write_text(json.dumps(state) + "\n", "utf-8")
        (draft / DESCRIPTION).write_text(json.dumps(description(parts), indent=1) + "\n", "utf-8")
        write_manifest(draft, {"step": step, "digests": digests_of(parts)}, base)

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
    foreign = {further.network.name for further in parts.plan.networks if further.network.foreign}
    modules.update({name: network for name, network in parts.further.items() if name not in foreign})
    return modules


def load_checkpoint(parts: Parts, folder: Path) -> None:
    """Put a checkpoint's state into freshly built parts. Raises DataError when it does not fit them."""
    try:
        for name, module in modules_of(parts).items():
            saved = load_file(folder / f"{name}.safetensors")
            if missing := sorted(state_of(parts, module).keys() - saved.keys()):
                raise KeyError(missing[0])
            fit = module.load_state_dict(saved, strict=False)
            if fit.unexpected_keys:
                raise KeyError(fit.unexpected_keys[0])
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
    theirs = json.loads((folder / MANIFEST).read_text("utf-8"))["digests"]
    for name, ours in digests_of(parts).items():
        if theirs.get(name) != ours:
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
            yield f"{name}/{key}", torch.as_tensor(value).detach().cpu().contiguous()


def save_best(parts: Parts, checkpoints: Path, step: int, figure: str, value: float) -> bool:
    """Keep the teacher's backbone in `best/` if `value` is above that of the one there, or of another figure. Returns whether."""
    place = checkpoints / BEST
    recover(place)
    if not math.isfinite(value):
        return False
    base = save_base(parts, checkpoints)
    if not fault_of(place):
        kept = json.loads((place / MANIFEST).read_text("utf-8"))
        if kept["figure"] == figure and kept["value"] >= value:
            return False

    def write(draft: Path) -> None:
        backbone = nn.ModuleDict({"backbone": parts.teacher.network.backbone})
        save_file(plain(state_of(parts, backbone)), draft / "teacher.safetensors")
        (draft / DESCRIPTION).write_text(json.dumps(description(parts), indent=1) + "\n", "utf-8")
        write_manifest(draft, {"step": step, "figure": figure, "value": value, "digests": digests_of(parts)}, base)

    write_folder(place, write)
    return True
