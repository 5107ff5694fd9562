"""Measuring a model that is there: opened as a run has it, so that its figures are the run's own, bit for bit on a CPU."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from dinomx_core.artifacts import RunFolder
from dinomx_core.builtin.single import SingleProcess
from dinomx_core.folders import MANIFEST
from dinomx_core.planning.foreign import Foreign
from dinomx_core.planning.measures import Measures
from dinomx_core.planning.origin import Origin
from dinomx_core.planning.plan import Env
from dinomx_core.planning.subjects import Subject
from dinomx_core.training.backbone import Backbone
from dinomx_core.training.build import build_backbone
from dinomx_core.training.construct import construct
from dinomx_core.training.contracts import Evaluator
from dinomx_core.training.data import Unreadable
from dinomx_core.training.evaluation import make_encoder, measured
from dinomx_core.training.opening import load_backbone, read_weights, rebuilt


def opened(subject: Subject, network: str) -> Backbone:
    """A subject's backbone; what strategies put in stays as it was trained, and is not merged. Raises DataError when it does not fit."""
    source = subject.source
    if isinstance(source, Origin):
        backbone, _ = rebuilt(source)
        if subject.float64:
            nn.Module.double(backbone)
        if (subject.place / MANIFEST).is_file():
            load_backbone(backbone, subject.place, network)
        else:
            backbone.load(subject.place)
        return backbone
    if isinstance(source, Foreign):
        return read_weights(source)
    backbone = build_backbone(source)
    backbone.warm_start()
    return nn.Module.double(backbone) if subject.float64 else backbone


def evaluators_of(measures: Measures) -> dict[str, Evaluator]:
    """The evaluators, built, which reads lists of their images."""
    return {label: construct(chosen) for label, chosen in measures.evaluate.items()}


def measure(
    subject: Subject,
    network: str,
    measures: Measures,
    evaluators: dict[str, Evaluator],
    device: torch.device,
    note: Callable[[str], None],
) -> dict[str, Any]:
    """A row: what was measured, the figures as "label/figure", and the seconds it took."""
    started, before = time.perf_counter(), torch.get_num_threads()
    torch.set_num_threads(subject.threads or Env.here().cores)
    try:
        backbone = opened(subject, network).to(device).eval()
        intensity = construct(measures.intensity or subject.intensity)
        unreadable = Unreadable(RunFolder(subject.run or subject.place, writes=False), 0, measures.max_unreadable, note)
        encoder = make_encoder(
            backbone, subject.preprocessing, subject.channels, SingleProcess(None, device), intensity, unreadable.evaluated
        )  # fmt: skip
        figures = measured(encoder, evaluators)
    finally:
        torch.set_num_threads(before)
    about = {"model": str(subject.run or subject.place), "checkpoint": subject.checkpoint, "step": subject.step}
    named = {"network": network, "config": measures.name, "digest": measures.digest}
    return {**about, **named, **figures, "seconds": time.perf_counter() - started}
