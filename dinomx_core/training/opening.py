"""Weights from elsewhere: runs, checkpoints, exports, and what backbones start from."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from dinomx_core.errors import DataError
from dinomx_core.folders import BASE, BASE_STATE, MANIFEST
from dinomx_core.planning.foreign import Foreign
from dinomx_core.planning.origin import Origin
from dinomx_core.training.backbone import Backbone
from dinomx_core.training.construct import construct
from dinomx_core.training.contracts import Loss, Strategy
from dinomx_core.training.shards import files_of, load_state

BACKBONE = "backbone."


def rebuilt(origin: Origin) -> tuple[Backbone, list[Strategy]]:
    """The backbone of an origin with fresh weights, and the strategies that have adapted it, in their order."""
    with torch.random.fork_rng(devices=[]):
        backbone: Backbone = construct(origin.chosen, origin.backbone, origin.image_size)
        strategies: list[Strategy] = [construct(chosen) for chosen in origin.strategies]
        for strategy in strategies:
            strategy.adapt(backbone)
    return backbone, strategies


def merged(backbone: Backbone, strategies: Iterable[Strategy]) -> Backbone:
    """The same backbone, plain again: what strategies put in has gone into its weights."""
    for strategy in reversed(list(strategies)):
        strategy.merge(backbone)
    return backbone


def opened(origin: Origin, place: Path, network: str) -> Backbone:
    """The plain backbone of an export, or of a checkpoint's "student" or "teacher". Raises DataError when it does not fit."""
    backbone, strategies = rebuilt(origin)
    if not (place / MANIFEST).is_file():
        backbone.load(place)
        return backbone
    load_backbone(backbone, place, network)
    return merged(backbone, strategies)


def read_weights(found: Foreign) -> Backbone:
    """The backbone of weights of others. Raises DataError when they do not fit."""
    with torch.random.fork_rng(devices=[]):
        backbone: Backbone = construct(found.chosen, found.shape, max(found.preprocessing.crop))
        backbone.warm_start()
    return backbone


def there_of(place: Path, network: str) -> str:
    """The network of a checkpoint that stands for "student" or "teacher": where a run had no second one, the student taught itself."""
    return "student" if network == "teacher" and not files_of(place, network) else network


def load_backbone(backbone: Backbone, place: Path, network: str) -> None:
    """One network's backbone of a checkpoint, with what it shares with the others. Raises DataError when it is not there or does not
    fit."""
    wanted = there_of(place, network)
    if not files_of(place, wanted):
        there = ", ".join(name for name in ("student", "teacher") if files_of(place, name))
        raise DataError(f'{place}: holds no network "{network}", only {there or "none"}')
    try:
        files = json.loads((place / MANIFEST).read_text("utf-8"))["files"]
        shared = any(name.startswith(f"../{BASE}/") for name in files)
        base = load_state(place.parent / BASE, BASE_STATE) if shared else {}
        backbone.load_state_dict({**base, **load_state(place, wanted, BACKBONE)})
    except (SafetensorError, RuntimeError, OSError, ValueError) as error:
        raise DataError(f"{place / wanted}.safetensors: cannot be loaded: {first_line(error)}") from None


def load_heads(heads: Mapping[str, nn.Module], place: Path, network: str) -> list[str]:
    """A checkpoint's heads of the same labels. Returns the labels that it does not have; raises DataError when one does not fit."""
    try:
        fresh = []
        for label, head in heads.items():
            theirs = load_state(place, there_of(place, network), f"heads.{label}.")
            if theirs:
                head.load_state_dict(theirs)
            else:
                fresh.append(label)
        return fresh
    except (OSError, RuntimeError, SafetensorError) as error:
        raise DataError(f"{place}: does not fit this run: {first_line(error)}") from None


def load_losses(losses: Mapping[str, Loss], place: Path) -> None:
    """What losses of the same label keep (centres of targets), where it has the same sizes."""
    for label, loss in losses.items():
        theirs = load_state(place, "losses", f"{label}.")
        ours = loss.state_dict()
        if {name: tensor.shape for name, tensor in theirs.items()} == {name: t.shape for name, t in ours.items()}:
            loss.load_state_dict(theirs)


def take_heads(heads: Mapping[str, nn.Module], theirs: Mapping[str, Mapping[str, Tensor]]) -> list[str]:
    """Heads that come beside a backbone's weights, where they fit. Returns what to say of each."""
    said = []
    for label, head in heads.items():
        ours, found = head.state_dict(), theirs.get(label)
        if found is None:
            said.append(f"head.{label}: fresh, the weights have none")
        elif {name: tensor.shape for name, tensor in found.items()} != {name: t.shape for name, t in ours.items()}:
            rows = found.get("last_layer.weight", found.get("last_layer.weight_v"))
            sizes = "other sizes" if rows is None else f"{rows.shape[0]} prototypes of {rows.shape[1]} features"
            said.append(f"head.{label}: fresh, the weights' has {sizes}")
        else:
            head.load_state_dict(dict(found))
            said.append(f"head.{label}: loaded")
    return said


def first_line(error: BaseException) -> str:
    """What an error says, without its details."""
    return str(error).strip().partition("\n")[0]
