"""Replay a recording of a reference code through config -> plan -> build -> training step, and compare.

    python -m tests.parity.replay FILE.safetensors

prints max|a - b| / max|b| for every recorded quantity and exits 1 where one is above its limit.
"""

import contextlib
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dinomx_core import api
from dinomx_core.builtin.hf import moved
from dinomx_core.builtin.reference import network_of, understand
from dinomx_core.builtin.single import SingleProcess
from dinomx_core.training import attention
from dinomx_core.training.build import Parts, build
from dinomx_core.training.data import MicroBatches, make_loader
from dinomx_core.training.flow import Tokens
from dinomx_core.training.loop import iter_views, make_images, train_step
from dinomx_dinov1.loss import pair_entropy
from dinomx_dinov2.ibot import masked_entropy
from dinomx_dinov2.koleo import nearest_distances
from dinomx_dinov2.plugin import SinkhornKnopp
from dinomx_dinov2.sinkhorn import SinkhornTarget
from dinomx_dinov3.gram import gram_distance
from tests.parity import configs, plugin

GOLDENS = Path(__file__).parents[1] / "goldens"
LIMIT, WIDE_LIMIT = 1e-4, 3e-4  # recorded quantities and features; weights and interpolated features
EXACT_LIMIT = 1e-6  # single functions
Results = dict[str, tuple[float, float]]  # quantity -> (distance, limit)


def distance(ours: Tensor, theirs: Tensor) -> float:
    """max|a - b| / max|b|; infinite where shapes differ or a number is not finite."""
    if ours.shape != theirs.shape or not bool(torch.isfinite(ours).all()):
        return float("inf")
    difference, size = (ours.double() - theirs.double()).abs().max().item(), theirs.double().abs().max().item()
    return difference / size if size else difference


def our_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Reference weights of backbone and heads under this project's names."""
    found = network_of(state, lambda value: isinstance(value, Tensor))
    how = understand({name: tuple(tensor.shape) for name, tensor in found.items()}, heads=1)
    if how.unused:
        raise KeyError(how.unused[0])
    result = {f"backbone.model.{move.ours}": moved(found[move.theirs], move) for move in how.moves}
    for label, names in how.heads.items():
        result.update({f"heads.{label}.{ours}": found[theirs] for ours, theirs in names.items()})
    return result


def below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of one group, without its prefix."""
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def tokens_in_eval(parts: Parts, pixels: Tensor) -> tuple[Tokens, list[Tensor]]:
    """Features of the student and the attention of every block."""
    backbone = parts.student.backbone.eval()
    with torch.no_grad(), attention.recorded() as maps:
        return backbone(pixels), maps


def train(config: dict, tensors: dict[str, Tensor], steps: int) -> tuple[Parts, list[dict]]:
    """Build, take the recorded weights, take the recorded steps. A row has the step's metrics and scheduled values."""
    the_plan = api.plan(config, plugins=[plugin])
    parts = build(the_plan)
    initial = our_names(below(tensors, "init/"))
    parts.student.load_state_dict(initial)
    parts.teacher.network.load_state_dict(initial)
    batches = MicroBatches(the_plan.batch, 0, 0, steps)
    loader = make_loader(make_images(parts), batches, the_plan.spec.loader, False)
    rows = []
    with contextlib.closing(iter_views(loader, parts.device)) as stream:
        for step in range(steps):
            row = {**the_plan.values_at(step), **train_step(parts, stream, step)[0]}
            row["last_layer_lr"] = next(g["lr"] for g in parts.optimizer.adamw.param_groups if g["last_layer"])
            rows.append(row)
    return parts, rows


def compare(rows: list[dict], found: Mapping[str, str | Callable], tensors: dict[str, Tensor], prefix: str) -> Results:
    """Recorded series against ours: by the name of a row's value, or worked out from the row."""
    results = {}
    for name, how in found.items():
        values = [how(row) if callable(how) else row[how] for row in rows]
        results[name] = (distance(torch.tensor(values, dtype=torch.float64), tensors[prefix + name]), LIMIT)
    return results


def compare_weights(parts: Parts, tensors: dict[str, Tensor]) -> Results:
    """Final student and teacher."""
    results = {}
    for group, network in (("final_student", parts.student), ("final_teacher", parts.teacher.network)):
        ours = network.state_dict()
        for name, theirs in our_names(below(tensors, f"{group}/")).items():
            if not name.endswith("k_proj.bias"):  # its true gradient is zero: the optimiser amplifies rounding there
                results[f"{group}/{name}"] = (distance(ours[name], theirs), WIDE_LIMIT)
    return results


def replay_dinov1(path: str, tensors: dict[str, Tensor]) -> Results:
    """DINO."""
    parts, rows = train(configs.dinov1(path, below(tensors, "init/")), tensors, len(tensors["losses"]))
    series: dict[str, str | Callable] = {
        "losses": "loss",
        "lr": "lr",
        "weight_decay": "weight_decay",
        "momentum": "teacher.momentum",
        "teacher_temp": "loss.dino.teacher_temperature",
    }
    results = compare(rows, series, tensors, "")
    results["final_center"] = (distance(parts.losses["dino"].target.center, tensors["final_center"]), LIMIT)
    results.update(compare_weights(parts, tensors))
    tokens, maps = tokens_in_eval(parts, tensors["crops"][0, 0])
    results["features_cls"] = (distance(tokens.cls, tensors["features_cls"]), LIMIT)
    results["last_attention"] = (distance(maps[-1], tensors["last_attention"]), LIMIT)
    for name in (n for n in tensors if re.fullmatch(r"crops_\d+", n)):
        tokens, _ = tokens_in_eval(parts, tensors[name])
        key = name.replace("crops", "features_cls")
        results[key] = (distance(tokens.cls, tensors[key]), WIDE_LIMIT)
    return results


def series_of(path: str, config: dict) -> dict[str, str | Callable]:
    """The recorded series of DINOv2 and DINOv3, by where ours are found."""
    views = {view.name: view.count for view in plugin.sizes(path).views}
    pairs = {"global": 2, "local": 2 * views.get("local", 0)}
    share = {name: count / sum(pairs.values()) for name, count in pairs.items()}  # DINOv2 records its terms so weighted
    koleo = config["loss"].get("koleo", {}).get("weight", 0.0)
    temperature = next(iter(label for label in ("dino", "ibot") if label in config["loss"]))
    return {
        "dino_local": lambda row: row.get("dino/local", 0.0) * share["local"],
        "dino_global": lambda row: row["dino/global"] * share["global"],
        "ibot": "loss/ibot",
        "koleo": lambda row: row.get("loss/koleo", 0.0) * koleo,
        "dino_local_crops_loss": lambda row: row.get("dino/local", 0.0),
        "dino_global_crops_loss": "dino/global",
        "dino_local_loss_weight": "loss.dino.local_weight",
        "ibot_loss": "loss/ibot",
        "koleo_loss": lambda row: row.get("loss/koleo", 0.0) / 2,  # DINOv3 records the mean over the global crops
        "gram_loss": lambda row: row.get("loss/gram", 0.0),
        "gram_loss_weight": lambda row: row.get("loss.gram.weight", 0.0),
        "optimised_total": "loss",
        "lr": "lr",
        "last_layer_lr": "last_layer_lr",
        "weight_decay": "weight_decay",
        "momentum": "teacher.momentum",
        "teacher_temp": f"loss.{temperature}.teacher_temperature",
    }


def replay_later(path: str, tensors: dict[str, Tensor], config: dict) -> Results:
    """DINOv2 and DINOv3."""
    parts, rows = train(config, tensors, plugin.sizes(path).steps)
    recorded = {name.removeprefix("record/") for name in tensors if name.startswith("record/")}
    series = series_of(path, config)
    if unknown := recorded - set(series):
        raise KeyError(f"recorded, and not compared: {sorted(unknown)}")
    results = compare(rows, {name: series[name] for name in sorted(recorded)}, tensors, "record/")
    for label, center in below(tensors, "final_center/").items():
        ours = parts.losses[label].target.center.view_as(center)
        results[f"final_center/{label}"] = (distance(ours, center), LIMIT)
    results.update(compare_weights(parts, tensors))
    inputs = {"final_features": tensors["step0/global_crops"][:2]}
    inputs.update({name.removesuffix("/input"): tensors[name] for name in tensors if name.endswith("/input")})
    for name, pixels in inputs.items():
        limit = LIMIT if name == "final_features" else WIDE_LIMIT
        tokens, _ = tokens_in_eval(parts, pixels)
        results[f"{name}/cls"] = (distance(tokens.cls, tensors[f"{name}/cls"]), limit)
        results[f"{name}/patch"] = (distance(tokens.patches, tensors[f"{name}/patch"]), limit)
    return results


def replay_functions(path: str, t: dict[str, Tensor]) -> Results:
    """Single functions: Sinkhorn-Knopp, the losses, schedules."""
    s, one = plugin.settings(path), SingleProcess(None, torch.device("cpu"))
    found: dict[str, Tensor] = {}
    target = SinkhornTarget(SinkhornKnopp(s["sinkhorn"]["iterations"]), t["sinkhorn/teacher_logits"].shape[1], one)
    for temperature in s["sinkhorn"]["temperatures"]:
        found[f"sinkhorn/probs_temp_{temperature}"] = target(t["sinkhorn/teacher_logits"], temperature)
    teacher, student, temperature = t["dino/teacher_probs"], t["dino/student_logits"], s["dino"]["student_temperature"]
    found["dino/loss"] = pair_entropy(teacher, student, temperature, same_crops=False)
    found["dino/loss_ignore_diagonal"] = pair_entropy(teacher, student[: len(teacher)], temperature, same_crops=True)
    patches = (t["ibot/teacher_probs_masked"], t["ibot/student_logits_masked"], t["ibot/masks"])
    found["ibot/loss"], _ = masked_entropy(*patches, s["ibot"]["student_temperature"])
    rows = t["koleo/features"]
    for name, neighbours in (("loss", 1), ("loss_top3", 3)):
        distances, _ = nearest_distances(rows, rows, 0, neighbours, 0)
        found[f"koleo/{name}"] = -torch.log(distances + s["koleo"]["eps"]).mean()
    ours, theirs = t["gram/student"], t["gram/teacher"]
    found["gram/image_level"] = gram_distance(ours, theirs, True, "keep")
    found["gram/batch_level"] = gram_distance(ours.flatten(0, 1), theirs.flatten(0, 1), True, "keep")
    found["gram/unnormalised"] = gram_distance(ours, theirs, False, "keep")
    found["gram/image_level_remove_neg"] = gram_distance(ours, theirs, True, "remove")
    found["gram/image_level_remove_teacher_neg"] = gram_distance(ours, theirs, True, "remove-teacher")
    for name, how in s["schedule"].items():
        found[f"schedule/{name}"] = torch.tensor(configs.curve(how), dtype=torch.float64)
    return {name: (distance(value, t[name]), EXACT_LIMIT) for name, value in found.items()}


def replay(path: str) -> Results:
    """Every recorded quantity's distance and limit."""
    tensors = load_file(path)
    if "sinkhorn/teacher_logits" in tensors:
        return replay_functions(path, tensors)
    if "crops" in tensors:
        return replay_dinov1(path, tensors)
    init = below(tensors, "init/")
    if "schedules" not in plugin.settings(path):
        return replay_later(path, tensors, configs.dinov2(path, init))
    with tempfile.TemporaryDirectory() as folder:
        gram_teacher = f"{folder}/gram_teacher.safetensors"
        save_file(below(tensors, "gram_init/"), gram_teacher)
        return replay_later(path, tensors, configs.dinov3(path, init, gram_teacher))


def main(path: str) -> int:
    """Print the table; 0 when everything is within its limit."""
    results = replay(path)
    for name, (found, limit) in results.items():
        print(f"{'ok  ' if found <= limit else 'FAIL'}  {found:9.2e}  (limit {limit:.0e})  {name}")
    failed = sum(found > limit for found, limit in results.values())
    print(f"{Path(path).name}: {len(results) - failed} of {len(results)} quantities within their limits")
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
