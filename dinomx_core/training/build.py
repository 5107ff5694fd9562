"""Plan -> live objects, in one fixed order: backbone, strategies, heads, teacher, losses, parallelism, optimiser, data."""

import importlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dinomx_core.declare.components import Component
from dinomx_core.declare.values import Chosen
from dinomx_core.errors import ConfigError, PluginError, Problem
from dinomx_core.planning.plan import Plan
from dinomx_core.training.contracts import (
    Augmentation,
    Dataset,
    Evaluator,
    Loss,
    LossContext,
    Parallelism,
    Start,
    Strategy,
    Target,
    Teacher,
)
from dinomx_core.training.network import Network, Objective
from dinomx_core.training.optimizer import Optimizer
from dinomx_core.training.streams import seed_of


@dataclass
class Parts:
    """Everything that a run is made of."""

    plan: Plan
    device: torch.device
    student: Network
    teacher: Teacher
    losses: dict[str, Loss]
    strategies: dict[str, Strategy]
    objective: nn.Module
    parallelism: Parallelism
    optimizer: Optimizer
    data: Dataset
    augmentation: Augmentation
    evaluators: dict[str, Evaluator]
    start: Start | None


def attribute(component: Component) -> Any:
    """The object that a declaration's `build` names. Raises PluginError when the path does not lead anywhere."""
    module, _, name = component.build.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise PluginError(f'{component.kind} "{component.name}": cannot load {component.build}: {error}') from error


def construct(chosen: Chosen, *context: Any) -> Any:
    """Build a picked component with its options and what its kind is given."""
    return attribute(chosen.component)(chosen.options, *context)


def make_device(plan: Plan) -> torch.device:
    """The plan's device. Raises ConfigError when torch cannot use it."""
    usable = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not usable[plan.device]:
        message = f'torch {torch.__version__} cannot use "{plan.device}" here; set run.device = "cpu" or install a torch that can'
        raise ConfigError([Problem(message, "run.device")])
    return torch.device(plan.device)


def build_network(plan: Plan, name: str) -> Network:
    """A backbone with the heads that requests of this network name, freshly initialised from the run's seed."""
    spec = plan.spec
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(spec.run.seed, "init", "backbone"))
        backbone = construct(spec.backbone, plan.backbone, plan.preprocessing.crop)
        heads = {}
        for label in dict.fromkeys(r.head for r in plan.requests if r.network == name and r.head):
            torch.manual_seed(seed_of(spec.run.seed, "init", "head", label))
            heads[label] = construct(spec.heads[label], plan.backbone.width)
    return Network(backbone, heads)


def build(plan: Plan) -> Parts:
    """Build every part of a run."""
    spec = plan.spec
    device = make_device(plan)
    if device.type == "cpu":
        torch.set_num_threads(spec.run.threads or plan.env.cores)
    student = build_network(plan, "student")
    start = student.backbone.warm_start()
    strategies = {label: construct(chosen) for label, chosen in (*spec.strategies.items(), ("teacher", spec.teacher))}
    for strategy in strategies.values():
        strategy.adapt(student.backbone)
    student.backbone.checkpoint_blocks = spec.run.activation_checkpointing
    student.to(device).train()
    teacher = make_teacher(plan, student, strategies)
    losses = {}
    for label, chosen in spec.losses.items():
        context = LossContext(plan.heads, plan.backbone.width, _target)
        losses[label] = construct(chosen, context).to(device)
    parallelism = construct(spec.parallelism, device)
    networks = {"student": student}
    if any(r.network == "teacher" for r in plan.requests):
        networks["teacher"] = teacher.network
    objective = parallelism.wrap(Objective(networks, losses, plan.requests))
    freeze = plan.lengths["optimizer.freeze_last_layer"]
    fp16 = spec.run.precision == "fp16"
    return Parts(
        plan=plan,
        device=device,
        student=student,
        teacher=teacher,
        losses=losses,
        strategies=strategies,
        objective=objective,
        parallelism=parallelism,
        optimizer=Optimizer(student, losses, spec.optimizer, freeze, parallelism, fp16),
        data=construct(spec.data),
        augmentation=construct(spec.augmentation, plan.data.channels),
        evaluators={label: construct(chosen) for label, chosen in spec.evaluate.items()},
        start=start,
    )


def make_teacher(plan: Plan, student: Network, strategies: dict[str, Strategy]) -> Teacher:
    """The teacher of the first strategy that supplies one, frozen and in evaluation mode."""
    for strategy in strategies.values():
        teacher = strategy.teacher(student, lambda: build_network(plan, "teacher"))
        if teacher is not None:
            if teacher.network is not student:
                teacher.network.requires_grad_(False).eval()
            return teacher
    raise ConfigError([Problem(f'strategy "{plan.spec.teacher.component.name}" supplies no teacher', "teacher.name")])


def _target(chosen: Chosen, outputs: int) -> Target:
    return construct(chosen, outputs)
