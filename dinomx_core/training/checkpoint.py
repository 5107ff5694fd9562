"""Checkpoints and exports: safetensors and JSON, written beside their place and moved there whole."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import attrs
import torch
from safetensors.torch import save_file

from dinomx_core.artifacts import RunFolder
from dinomx_core.planning.plan import Plan
from dinomx_core.planning.walk import leaves
from dinomx_core.training.build import Parts


def write_folder(place: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a draft folder, then move it to its place, so that a reader sees all of it or nothing."""
    draft = place.with_name(f".{place.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    write(draft)
    shutil.rmtree(place, ignore_errors=True)
    os.replace(draft, place)


def tensors_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A module's state as safetensors takes it: contiguous, on the CPU."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}


def save_checkpoint(parts: Parts, folder: RunFolder, step: int) -> None:
    """Everything that training changed, after `step` steps: student, teacher, losses, optimiser."""

    def write(draft: Path) -> None:
        save_file(tensors_of(parts.student), draft / "student.safetensors")
        if parts.teacher.network is not parts.student:
            save_file(tensors_of(parts.teacher.network), draft / "teacher.safetensors")
        losses = torch.nn.ModuleDict(parts.losses)
        save_file(tensors_of(losses), draft / "losses.safetensors")
        save_file(optimizer_tensors(parts), draft / "optimizer.safetensors")
        state = {"step": step, "scaler": parts.optimizer.scaler.state_dict()}
        (draft / "state.json").write_text(json.dumps(state) + "\n", "utf-8")

    write_folder(folder.checkpoint(step), write)


def optimizer_tensors(parts: Parts) -> dict[str, torch.Tensor]:
    """AdamW's moments by parameter name."""
    modules: tuple[tuple[str, torch.nn.Module], ...] = (
        ("student", parts.student),
        *((f"losses.{label}", loss) for label, loss in parts.losses.items()),
    )
    names = {id(p): f"{prefix}.{name}" for prefix, module in modules for name, p in module.named_parameters()}
    return {
        f"{names[id(parameter)]}/{key}": torch.as_tensor(value).detach().cpu().contiguous()
        for parameter, state in parts.optimizer.adamw.state.items()
        for key, value in state.items()
    }


def save_export(parts: Parts, folder: RunFolder) -> None:
    """The teacher's backbone as a Hugging Face folder, with what `dinomx_core.load` needs in `dinomx.json`."""

    def write(draft: Path) -> None:
        parts.teacher.network.backbone.save(draft)
        (draft / "dinomx.json").write_text(json.dumps(description(parts.plan), indent=1) + "\n", "utf-8")

    write_folder(folder.export, write)


def description(plan: Plan) -> dict:
    """What rebuilds the backbone and its preprocessing."""
    chosen = plan.spec.backbone
    options = {path[-1]: value for path, value in leaves(chosen.options)}
    return {
        "backbone": {"name": chosen.component.name, "options": options},
        "channels": plan.data.channels,
        "image_size": plan.preprocessing.crop,
        "preprocessing": attrs.asdict(plan.preprocessing),
    }
