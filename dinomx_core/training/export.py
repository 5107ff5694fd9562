"""Exports: a backbone as a Hugging Face folder with its preprocessing and a model card, or as ONNX."""

import dataclasses
import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from dinomx_core.declare.components import Preprocessing
from dinomx_core.errors import DataError
from dinomx_core.planning.plan import Plan
from dinomx_core.planning.walk import as_table
from dinomx_core.training.build import Parts
from dinomx_core.training.card import model_card
from dinomx_core.training.contracts import Backbone

DESCRIPTION, PROCESSOR, CARD, ONNX = "dinomx.json", "preprocessor_config.json", "README.md", "model.onnx"
ONNX_TOLERANCE = 1e-3  # of the largest feature: runtimes order sums differently
OPSET = 20


def description(parts: Parts) -> dict[str, Any]:
    """What rebuilds the backbone and its preprocessing, and what the model card tells."""
    plan = parts.plan
    return {
        "backbone": {
            "name": plan.spec.backbone.component.name,
            "options": as_table(parts.student.backbone.options),
        },
        "channels": plan.data.channels,
        "image_size": plan.preprocessing.crop,
        "preprocessing": attrs.asdict(plan.preprocessing),
        "start": dataclasses.asdict(parts.start) if parts.start else None,
        "run": facts(plan),
    }


def facts(plan: Plan) -> dict[str, Any]:
    """The run in a few words, for its model card."""
    spec = plan.spec
    return {
        "name": spec.run.name,
        "losses": {label: chosen.component.name for label, chosen in spec.losses.items()},
        "data": {"name": spec.data.component.name, "images": plan.data.count, "classes": len(plan.data.classes)},
        "steps": plan.steps,
        "batch_size": plan.batch.images,
        "passes": round(plan.passes, 2),
        "precision": spec.run.precision,
        "parameters": plan.backbone.parameters,
        "command": plan.command,
        "versions": plan.env.versions,
    }


def processor(how: Preprocessing, channels: int) -> dict[str, Any]:
    """The same preprocessing in the words of transformers' image processors (bicubic, shorter side, centre crop)."""
    side = {"height": how.crop, "width": how.crop}
    spread = lambda values: list(values) * (channels if len(values) == 1 else 1)  # noqa: E731
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": channels == 3, "do_resize": True, "size": {"shortest_edge": how.resize}, "resample": 3,
        "do_center_crop": True, "crop_size": side, "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": spread(how.mean), "image_std": spread(how.std),
    }  # fmt: skip


def write_export(draft: Path, backbone: Backbone, about: dict[str, Any], evaluations: list[dict[str, Any]]) -> None:
    """Fill a folder that `AutoModel.from_pretrained` and `dinomx_core.load` open."""
    backbone.save(draft)
    write_about(draft, about, evaluations)


def write_about(draft: Path, about: dict[str, Any], evaluations: list[dict[str, Any]]) -> None:
    """Preprocessing, description and model card."""
    how = Preprocessing(**about["preprocessing"])
    (draft / DESCRIPTION).write_text(json.dumps(about, indent=1) + "\n", "utf-8")
    (draft / PROCESSOR).write_text(json.dumps(processor(how, about["channels"]), indent=1) + "\n", "utf-8")
    (draft / CARD).write_text(model_card(about, evaluations), "utf-8")


class Exported(nn.Module):
    """A backbone with plain tensors as its results: ONNX knows no `Tokens`."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """pixels (B, C, H, W) -> cls (B, D), or the patches' mean where there is no class token, and patches (B, N, D)."""
        tokens = self.backbone(pixels)
        return tokens.summary, tokens.patches


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
