"""A recording's settings as this project's config; sizes are read from the tensors."""

import re

from torch import Tensor

from dinomx_core import Schedule
from dinomx_core.planning.schedule import resolve
from tests.parity import plugin

State = dict[str, Tensor]


def heads_of(state: State, width: int, said: int | None) -> int:
    """Attention heads: DINOv3's rotary periods tell a head's width; the recordings without have two, unless they say."""
    periods = state.get("backbone.rope_embed.periods")
    return width // (4 * len(periods)) if periods is not None else said or 2


def head(state: State, prefix: str, trained: bool | None) -> dict:
    """Options of a projection head; `trained`: whether the prototypes' lengths are, None for a plain layer."""
    mlp = [state[name] for name in sorted(state) if re.fullmatch(rf"{prefix}\.mlp(\.\d+)?\.weight", name)]
    last = state[f"{prefix}.last_layer.weight" if trained is None else f"{prefix}.last_layer.weight_v"]
    sizes = {"prototypes": len(last), "hidden": len(mlp[0]), "bottleneck": last.shape[1], "layers": len(mlp)}
    return {"name": "dinov3", **sizes} if trained is None else {"name": "dino", **sizes, "train_magnitude": trained}


def backbone(state: State, heads: int | None) -> dict:
    """What all backbones share."""
    width, _, patch, _ = state["backbone.patch_embed.proj.weight"].shape
    depth = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("backbone.blocks."))
    first = "backbone.blocks.0.mlp."
    hidden = next(
        (len(state[first + name]) for name in ("fc1.weight", "w1.weight") if first + name in state), 4 * width
    )
    result = {
        "width": width,
        "depth": depth,
        "heads": heads_of(state, width, heads),
        "mlp_ratio": hidden / width,
        "patch_size": patch,
        "drop_path": 0.0,
        "qkv_bias": "backbone.blocks.0.attn.qkv.bias" in state,
        "layer_norm_eps": 1e-6,
    }
    if "backbone.pos_embed" in state:
        result["image_size"] = round((state["backbone.pos_embed"].shape[1] - 1) ** 0.5) * patch
    return result


def frame(path: str, steps: int) -> dict:
    """What all configs share."""
    return {
        "run": {"steps": steps, "batch_size": plugin.sizes(path).batch, "precision": "float32", "device": "cpu"},
        "loader": {"workers": 0, "shuffle": False},
        "data": {"name": "recorded", "path": path},
        "augmentation": {"name": "recorded", "path": path},
    }


def local_view(path: str) -> str:
    """ "" where there are none."""
    return "local" if "local" in {view.name for view in plugin.sizes(path).views} else ""


def dinov1(path: str, init: State) -> dict:
    """DINO."""
    s = plugin.settings(path)
    a_pass = s["iters_per_epoch"]
    return {
        **frame(path, s["epochs"] * a_pass),  # the schedules' length; the recording may hold fewer
        "backbone": {
            "name": "vit",
            **backbone(init, s["heads"]),
            "positions": "offset",
            "layer_norm_eps": s["layer_norm_eps"],
        },
        "head": {"dino": head(init, "head", not s["norm_last_layer"])},
        "loss": {
            "dino": {
                "student_temperature": s["student_temp"],
                "local_view": local_view(path),
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


def losses(s: dict, path: str, temperature: dict) -> dict:
    """DINO, iBOT and KoLeo of DINOv2 and DINOv3; a loss of weight 0 is left out, as there."""
    name = {"centering": "centering", "sinkhorn_knopp": "sinkhorn-knopp"}[s["train"]["centering"]]
    result: dict = {}
    if s["dino"]["loss_weight"]:
        result["dino"] = {
            "weight": s["dino"]["loss_weight"],
            "masked": True,
            "local_view": local_view(path),
            "teacher_temperature": temperature,
            "target": {"name": name},
        }
    if s["ibot"]["loss_weight"]:
        result["ibot"] = {
            "weight": s["ibot"]["loss_weight"],
            "head": "ibot" if s["ibot"]["separate_head"] else "dino",
            "teacher_temperature": temperature,
            "target": {"name": name},
        }
    if s["dino"]["koleo_loss_weight"]:
        result["koleo"] = {
            "weight": s["dino"]["koleo_loss_weight"],
            "masked": True,
            "neighbours": s["dino"].get("koleo_topk", 1),
        }
    return result


def optimizer(o: dict, a_pass: int, freeze: int) -> dict:
    """What DINOv2's and DINOv3's share but for the schedules."""
    return {
        "betas": [o["adamw_beta1"], o["adamw_beta2"]],
        "clip": float(o["clip_grad"] or 0),
        "clip_scope": "network",
        "layer_decay": o["layerwise_decay"],
        "patch_embed_lr": o["patch_embed_lr_mult"],
        "freeze_last_layer": freeze * a_pass,
        "freeze_last_layer_by": "lr",
    }


def dinov2(path: str, init: State) -> dict:
    """DINOv2."""
    s = plugin.settings(path)
    o, a_pass, student = s["optim"], s["train"]["OFFICIAL_EPOCH_LENGTH"], s["student"]
    t = s["teacher"]
    warm = t["warmup_teacher_temp_epochs"] * a_pass
    temperature = {"start": t["warmup_teacher_temp"], "peak": t["teacher_temp"], "warmup": warm, "shape": "constant"}
    registers = init["backbone.register_tokens"].shape[1] if "backbone.register_tokens" in init else 0
    heads = {"dino": head(init, "dino_head", True)}
    if s["ibot"]["separate_head"]:
        heads["ibot"] = head(init, "ibot_head", True)
    return {
        **frame(path, o["epochs"] * a_pass),
        "backbone": {
            "name": "dinov2-registers" if registers else "dinov2",
            **(shape := backbone(init, student.get("num_heads"))),
            "mlp_ratio": round(shape["mlp_ratio"]),
            **({"registers": registers} if registers else {}),
            "swiglu": "backbone.blocks.0.mlp.w12.weight" in init,
            "positions": "offset" if student["interpolate_offset"] else "model",
        },
        "head": heads,
        "loss": losses(s, path, temperature),
        "teacher": {"momentum": {"peak": t["momentum_teacher"], "end": float(t["final_momentum_teacher"])}},
        "optimizer": {
            "lr": {"start": 0.0, "peak": o["lr"], "end": o["min_lr"], "warmup": o["warmup_epochs"] * a_pass},
            "weight_decay": {"peak": o["weight_decay"], "end": o["weight_decay_end"]},
            **optimizer(o, a_pass, o["freeze_last_layer_epochs"]),
        },
    }


def schedule(s: dict, a_pass: int) -> dict:
    """A linear warm-up and a cosine, as DINOv3 has them."""
    warmup = s["warmup_epochs"] * a_pass
    result = {
        "start": s["start"],
        "peak": s["peak"],
        "end": s["end"],
        "warmup": warmup,
        "convention": "decay-inclusive",
    }
    if "cosine_epochs" in s:
        result["decay"] = s["cosine_epochs"] * a_pass
    return result


def curve(s: dict) -> list[float]:
    """A recorded schedule's values: the cosine scheduler of DINO and DINOv2, or DINOv3's linear warm-up and cosine."""
    later = "peak" in s
    options = {
        "peak": s["peak" if later else "base"],
        "start": s["start"],
        "end": s["end" if later else "final"],
        "warmup": s["warmup"],
        "decay": s.get("cosine"),
        "extra": s.get("trunc_extra", 0.0),
        "convention": "decay-inclusive" if later else "warmup-inclusive",
    }
    found = resolve(Schedule(**options), s["total"], 1.0)
    return [found.at(step) for step in range(s["total"])]


def gram(g: dict, path: str, teacher: str, a_pass: int) -> dict:
    """DINOv3's Gram loss."""
    larger = "gram" in {view.name for view in plugin.sizes(path).views}
    negatives = "remove" if g["remove_neg"] else "remove-teacher" if g["remove_only_teacher_neg"] else "keep"
    weights = g.get("loss_weight_schedule")
    updates = g["rep_update"] and not g["ema_teacher"]
    return {
        "weight": schedule(weights, a_pass) if weights else g["loss_weight"],
        "teacher": "ema" if g["ema_teacher"] else teacher,
        "refresh_every": g["update_frequency"] if updates else 0,
        "refresh_from": g["it_first_update"] if updates else 0,
        "refreshes": (g["max_updates"] or 0) if updates else 0,
        "teacher_view": "gram" if larger else "global",
        "masked": True,
        "normalised": g["normalized"],
        "level": "image" if g["img_level"] else "batch",
        "tokens": g["tokens_used"],
        "negatives": negatives,
        "antialias": g["global_teacher_resize_antialias"],
    }


def dinov3(path: str, init: State, gram_teacher: str) -> dict:
    """DINOv3. `gram_teacher`: file with the Gram teacher's recorded weights."""
    s = plugin.settings(path)
    o, a_pass = s["optim"], s["train"]["OFFICIAL_EPOCH_LENGTH"]
    curves = {name: schedule(curve, a_pass) for name, curve in s["schedules"].items()}
    shape = backbone(init, None)
    found = losses(s, path, curves["teacher_temp"])
    if s["dino"]["reweight_dino_local_loss"] and "dino" in found:
        found["dino"]["local_weight"] = schedule(s["dino"]["local_loss_weight_schedule"], a_pass)
    if s.get("gram", {}).get("use_loss"):
        found["gram"] = gram(s["gram"], path, gram_teacher, a_pass)
    heads = {"dino": head(init, "dino_head", None)}
    if s["ibot"]["separate_head"]:
        heads["ibot"] = head(init, "ibot_head", None)
    tokens = init.get("backbone.storage_tokens")
    return {
        **frame(path, o["epochs"] * a_pass),
        "backbone": {
            "name": "dinov3-vit",
            **shape,
            "registers": 0 if tokens is None else tokens.shape[1],
            "swiglu": "backbone.blocks.0.mlp.w1.weight" in init,
            "rope_base": s["student"]["pos_embed_rope_base"],
            "rope_rescale": s["student"]["pos_embed_rope_rescale_coords"] or 1.0,
        },
        "head": heads,
        "loss": found,
        "teacher": {"momentum": curves["momentum"]},
        "optimizer": {
            "lr": curves["lr"],
            "weight_decay": curves["weight_decay"],
            **optimizer(o, a_pass, s["schedules"]["lr"]["freeze_last_layer_epochs"]),
        },
    }
