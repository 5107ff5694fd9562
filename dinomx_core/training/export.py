"""Exports: a backbone as a Hugging Face folder with its preprocessing and a model card, or as ONNX."""

import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from dinomx_core.artifacts import RunFolder
from dinomx_core.declare.discover import Registry
from dinomx_core.declare.facts import Preprocessing
from dinomx_core.declare.values import Chosen
from dinomx_core.errors import ConfigError, DataError, Problem
from dinomx_core.folders import BEST, DESCRIPTION, MANIFEST, fault_of, newest_whole, steps_in, write_folder
from dinomx_core.planning.origin import data_reading, describe
from dinomx_core.planning.plan import Plan, units_of
from dinomx_core.planning.walk import as_table
from dinomx_core.training.backbone import Backbone
from dinomx_core.training.build import Parts
from dinomx_core.training.card import model_card
from dinomx_core.training.contracts import Strategy
from dinomx_core.training.opening import load_backbone, merged, rebuilt

PROCESSOR, CARD, ONNX = "preprocessor_config.json", "README.md", "model.onnx"
ONNX_TOLERANCE = 1e-3  # of the largest feature: runtimes order sums differently
OPSET = 20
PLAIN = {"name": "full-range", "options": {"range": []}}


def description(parts: Parts) -> dict[str, Any]:
    """What rebuilds the backbone and its preprocessing, and what the model card tells."""
    plan = parts.plan
    return {
        "backbone": {
            "name": parts.student.backbone.component or plan.spec.backbone.component.name,
            "options": as_table(parts.student.backbone.options),
        },
        "heads": {
            label: {"name": plan.spec.heads[label].component.name, **attrs.asdict(shape)}
            for label, shape in plan.heads.items()
        },
        "channels": plan.data.channels,
        "image_size": max(plan.preprocessing.crop),
        "preprocessing": as_table(plan.preprocessing),
        "intensity": named_table(plan.spec.intensity),
        "units": units_of(plan),
        "reader": data_reading(plan.spec, plan.registry).table(),
        "strategies": [
            {"label": chosen.label, "name": chosen.component.name, "options": as_table(chosen.options)}
            for chosen in plan.spec.strategies.values()
            if chosen.component.adapt
        ],
        "start": start_of(parts),
        "run": facts(plan),
    }


def named_table(chosen: Chosen) -> dict[str, Any]:
    """A component as a description keeps it."""
    return {"name": chosen.component.name, "options": as_table(chosen.options)}


def start_of(parts: Parts) -> dict[str, Any] | None:
    """What the run started from, in words."""
    start = parts.start
    if start is None:
        return None
    return {"weights": start.weights, "report": start.report, "licence": start.licence, "hub": start.hub}


def facts(plan: Plan) -> dict[str, Any]:
    """The run in a few words, for its model card."""
    spec = plan.spec
    return {
        "name": spec.run.name,
        "losses": {label: chosen.component.name for label, chosen in spec.losses.items()},
        "strategies": {label: chosen.component.name for label, chosen in spec.strategies.items()},
        "trained": plan.trains.trainable,
        "data": {
            "name": spec.data.component.name,
            "images": plan.data.count,
            "classes": len(plan.data.classes),
            "labels": plan.data.label_kind if plan.data.labelled else "",
        },
        "steps": plan.steps,
        "batch_size": plan.batch.images,
        "passes": round(plan.passes, 2),
        "precision": spec.run.precision,
        "parameters": plan.backbone.parameters,
        "command": plan.source.command,
        "versions": plan.env.versions,
    }


def processor(how: Preprocessing, channels: int, bytes_in: bool) -> dict[str, Any]:
    """The same preprocessing in the words of transformers' image processors (bicubic, shorter side, centre crop). bytes_in: of uint8
    images; else of what an intensity has made of them."""
    side = {"height": how.crop.height, "width": how.crop.width}
    spread = lambda values: list(values) * (channels if len(values) == 1 else 1)  # noqa: E731
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": channels == 3, "do_resize": True, "size": {"shortest_edge": how.resize}, "resample": 3,
        "do_center_crop": True, "crop_size": side, "do_rescale": bytes_in, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": spread(how.mean), "image_std": spread(how.std),
    }  # fmt: skip


def write_export(draft: Path, backbone: Backbone, about: dict[str, Any], evaluations: list[dict[str, Any]]) -> None:
    """Fill a folder that `AutoModel.from_pretrained` and `dinomx_core.load` open."""
    backbone.save(draft)
    write_about(draft, about, evaluations)


def write_about(draft: Path, about: dict[str, Any], evaluations: list[dict[str, Any]]) -> None:
    """Preprocessing, description and model card."""
    how = Preprocessing(**about["preprocessing"])
    (draft / DESCRIPTION).write_text(json.dumps({**about, "strategies": []}, indent=1) + "\n", "utf-8")
    bytes_in = about["intensity"] == PLAIN
    (draft / PROCESSOR).write_text(json.dumps(processor(how, about["channels"], bytes_in), indent=1) + "\n", "utf-8")
    (draft / CARD).write_text(model_card(about, evaluations), "utf-8")


class Exported(nn.Module):
    """A backbone with plain tensors as its results: ONNX knows no `Tokens`."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """pixels (B, C, H, W) -> cls (B, D), or the patches' mean where there is no class token, and patches (B, N, D)."""
        tokens = self.backbone(pixels)
        return tokens.features, tokens.patches


def write_onnx(draft: Path, backbone: Backbone, about: dict[str, Any], evaluations: list[dict[str, Any]]) -> float:
    """Write `model.onnx` (input `pixels` (B, C, H, W); outputs `cls` (B, D) and `patches` (B, N, D); any B) and check it
    against torch on other inputs. Returns the largest difference over the largest feature; raises DataError above 1e-3."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as error:
        raise DataError(f'ONNX needs more packages ({error.name}): pip install "dinomx[onnx]"') from None
    module = Exported(backbone).eval()
    shape = (about["channels"], about["image_size"], about["image_size"])
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module, (torch.randn(2, *shape),), draft / ONNX, input_names=["pixels"], output_names=["cls", "patches"],
                dynamic_shapes={"pixels": {0: torch.export.Dim("batch")}}, opset_version=OPSET, dynamo=True,
                external_data=False, verbose=False,
            )  # fmt: skip
    finally:
        quiet.setLevel(level)
    session = onnxruntime.InferenceSession(str(draft / ONNX), providers=["CPUExecutionProvider"])
    worst = 0.0
    for batch in (1, 3):
        pixels = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            wanted = module(pixels)
        for ours, theirs in zip(wanted, session.run(None, {"pixels": pixels.numpy()})):
            worst = max(worst, float((ours - torch.from_numpy(theirs)).abs().max() / ours.abs().max()))
    if not worst < ONNX_TOLERANCE:
        raise DataError(
            f"{draft / ONNX}: features differ from torch's by {worst:.2g} of the largest; nothing was exported"
        )
    write_about(draft, about, evaluations)
    return worst


FORMATS: dict[str, Callable[..., float | None]] = {"huggingface": write_export, "onnx": write_onnx}


def save_run_export(parts: Parts, folder: RunFolder) -> None:
    """The teacher's backbone, from the checkpoint that the run ended with, in `export/`."""
    place = folder.checkpoints / str(parts.plan.steps)
    backbone, strategies = rebuilt(describe(place, parts.plan.registry))
    load_backbone(backbone, place, "teacher")
    about = {**description(parts), "network": "teacher", "step": parts.plan.steps}

    def write(draft: Path) -> None:
        write_export(draft, write_beside(draft, backbone.eval(), strategies), about, folder.rows("evaluations"))

    write_folder(folder.export, write)


def write_beside(draft: Path, backbone: Backbone, strategies: list[Strategy]) -> Backbone:
    """Let strategies write what is theirs. Returns the backbone, made plain."""
    for strategy in strategies:
        strategy.export(backbone, draft)
    return merged(backbone, strategies)


def export_checkpoint(
    run_dir: Path, out: Path, checkpoint: str, network: str, form: str, registry: Registry
) -> dict[str, Any]:
    """See `api.export`."""
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
    origin = describe(place, registry)
    backbone, strategies = rebuilt(origin)
    load_backbone(backbone, place, network)
    step = json.loads((place / MANIFEST).read_text("utf-8"))["step"]
    about = {**json.loads((place / DESCRIPTION).read_text("utf-8")), "network": network, "step": step}
    evaluations = [row for row in RunFolder(run_dir).rows("evaluations") if row["step"] <= step]
    differences: list[float | None] = []

    def write(draft: Path) -> None:
        plain = write_beside(draft, backbone.eval(), strategies)
        differences.append(FORMATS[form](draft, plain, about, evaluations))

    write_folder(out.absolute(), write)
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
