"""Replay a recording of a reference code through config -> plan -> build -> training step, and compare.

    python -m tests.parity.replay FILE.safetensors

prints max|a - b| / max|b| for every recorded quantity and exits 1 where one is above its limit.
"""

import contextlib
import re
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from dinomx_core import api
from dinomx_core.training import attention
from dinomx_core.training.build import Parts, build
from dinomx_core.training.data import MicroBatches, TrainingImages, make_loader
from dinomx_core.training.loop import iter_views, train_step
from dinomx_dinov1.weights import backbone_from_reference
from tests.parity import plugin

GOLDENS = Path(__file__).parents[1] / "goldens"
LIMIT, WIDE_LIMIT = 1e-4, 3e-4  # recorded quantities and features; weights and interpolated features


def distance(ours: Tensor, theirs: Tensor) -> float:
    """max|a - b| / max|b|; infinite where shapes differ or a number is not finite."""
    if ours.shape != theirs.shape or not bool(torch.isfinite(ours).all()):
        return float("inf")
    difference, size = (ours.double() - theirs.double()).abs().max().item(), theirs.double().abs().max().item()
    return difference / size if size else difference


def our_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Reference weights of backbone and head under this project's names."""
    backbone = {name[9:]: tensor for name, tensor in state.items() if name.startswith("backbone.")}
    result = {f"backbone.model.{name}": tensor for name, tensor in backbone_from_reference(backbone).items()}
    for name, tensor in state.items():
        if name.startswith("head."):  # the reference's head of one layer has it bare, not in a sequence
            result[
                f"heads.dino.{re.sub(r'^mlp[.](weight|bias)$', r'mlp.0.[1]', name[5:]).replace('[1]', name.rpartition('.')[2])}"
            ] = tensor
    return result


def below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of one group, without its prefix."""
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def dinov1_config(path: str, tensors: dict[str, Tensor]) -> dict:
    """The recording's settings as this project's config; sizes are read from the tensors."""
    s = plugin.settings(path)
    init = below(tensors, "init/")
    _, crops, batch, *_ = tensors["crops"].shape
    a_pass = s["iters_per_epoch"]
    steps = s["epochs"] * a_pass  # the schedules' length; the recording may hold fewer
    width, _, patch, _ = init["backbone.patch_embed.proj.weight"].shape
    mlp = [init[name] for name in sorted(init) if re.fullmatch(r"head\.mlp(\.\d+)?\.weight", name)]
    prototypes, bottleneck = init["head.last_layer.weight_v"].shape
    side = round((init["backbone.pos_embed"].shape[1] - 1) ** 0.5)
    depth = len({name.split(".")[2] for name in init if name.startswith("backbone.blocks.")})
    return {
        "run": {"steps": steps, "batch_size": batch, "precision": "float32", "device": "cpu"},
        "loader": {"workers": 0, "shuffle": False},
        "data": {"name": "recorded", "path": path},
        "augmentation": {"name": "recorded", "path": path},
        "backbone": {
            "name": "vit",
            "width": width,
            "depth": depth,
            "heads": s["heads"],
            "mlp_ratio": init["backbone.blocks.0.mlp.fc1.weight"].shape[0] / width,
            "patch_size": patch,
            "image_size": side * patch,
            "positions": "offset",
            "drop_path": 0.0,
            "qkv_bias": "backbone.blocks.0.attn.qkv.bias" in init,
            "layer_norm_eps": s["layer_norm_eps"],
        },
        "head": {
            "dino": {
                "prototypes": prototypes,
                "hidden": mlp[0].shape[0],
                "bottleneck": bottleneck,
                "layers": len(mlp),
                "train_magnitude": not s["norm_last_layer"],
            }
        },
        "loss": {
            "dino": {
                "student_temperature": s["student_temp"],
                "local_view": "local" if crops > 2 else "",
                "teacher_temperature": {
                    "start": s["warmup_teacher_temp"],
                    "peak": s["teacher_temp"],
                    "warmup": s["warmup_teacher_temp_epochs"] * a_pass,
                    "shape": "constant",
                    "hold": a_pass,
                },
                "target": {"name": "centering", "momentum": s["center_momentum"]},
            }
        },
        "teacher": {"momentum": {"peak": s["momentum_teacher"], "end": 1.0}},
        "optimizer": {
            "lr": {"start": 0.0, "peak": s["lr"], "end": s["min_lr"], "warmup": s["warmup_epochs"] * a_pass},
            "weight_decay": {"peak": s["weight_decay"], "end": s["weight_decay_end"]},
            "clip": float(s["clip_grad"] or 0),
            "clip_scope": "tensor",
            "freeze_last_layer": s["freeze_last_layer_epochs"] * a_pass,
        },
    }


def tokens_in_eval(parts: Parts, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
    """CLS features of the student and the attention of every block."""
    backbone = parts.student.backbone.eval()
    with torch.no_grad(), attention.recorded() as maps:
        return backbone(pixels).cls, maps


def replay_dinov1(path: str, tensors: dict[str, Tensor]) -> dict[str, tuple[float, float]]:
    """Quantity -> (distance, limit)."""
    the_plan = api.plan(dinov1_config(path, tensors), plugins=[plugin])
    parts = build(the_plan)
    initial = our_names(below(tensors, "init/"))
    parts.student.load_state_dict(initial)
    parts.teacher.network.load_state_dict(initial)
    images = TrainingImages(parts.data, parts.augmentation, 0, shuffle=False)
    recorded = len(tensors["losses"])
    batches = MicroBatches(the_plan.batch, 0, 0, recorded)
    rows, values = [], []
    with contextlib.closing(
        iter_views(make_loader(images, batches, the_plan.spec.loader, False), parts.device, lambda faults: None)
    ) as stream:
        for step in range(recorded):
            values.append(the_plan.values_at(step))
            rows.append(train_step(parts, stream, step))
    found = {
        "losses": [row["loss"] for row in rows],
        "lr": [row["lr"] for row in rows],
        "weight_decay": [row["weight_decay"] for row in rows],
        "momentum": [v["teacher.momentum"] for v in values],
        "teacher_temp": [v["loss.dino.teacher_temperature"] for v in values],
    }
    results = {
        name: (distance(torch.tensor(v, dtype=torch.float64), tensors[name]), LIMIT) for name, v in found.items()
    }
    results["final_center"] = (distance(parts.losses["dino"].target.center, tensors["final_center"]), LIMIT)
    for group, network in (("final_student", parts.student), ("final_teacher", parts.teacher.network)):
        ours = network.state_dict()
        for name, theirs in our_names(below(tensors, f"{group}/")).items():
            if not name.endswith("k_proj.bias"):  # its true gradient is zero: the optimiser amplifies rounding there
                results[f"{group}/{name}"] = (distance(ours[name], theirs), WIDE_LIMIT)
    cls, maps = tokens_in_eval(parts, tensors["crops"][0, 0])
    results["features_cls"] = (distance(cls, tensors["features_cls"]), LIMIT)
    results["last_attention"] = (distance(maps[-1], tensors["last_attention"]), LIMIT)
    for name in (n for n in tensors if re.fullmatch(r"crops_\d+", n)):
        cls, _ = tokens_in_eval(parts, tensors[name])
        key = name.replace("crops", "features_cls")
        results[key] = (distance(cls, tensors[key]), WIDE_LIMIT)
    return results


def main(path: str) -> int:
    """Print the table; 0 when everything is within its limit."""
    results = replay_dinov1(path, load_file(path))
    for name, (found, limit) in results.items():
        print(f"{'ok  ' if found <= limit else 'FAIL'}  {found:9.2e}  (limit {limit:.0e})  {name}")
    failed = sum(found > limit for found, limit in results.values())
    print(f"{Path(path).name}: {len(results) - failed} of {len(results)} quantities within their limits")
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
