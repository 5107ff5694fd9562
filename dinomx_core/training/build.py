"""Plan -> live objects, in one fixed order: backbone, strategies, heads, teacher, losses, parallelism, optimiser, data."""

import importlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from dinomx_core.declare.components import Component
from dinomx_core.declare.facts import (
    Frozen,
)
from dinomx_core.declare.values import Chosen
from dinomx_core.errors import ConfigError, DataError, PluginError, Problem
from dinomx_core.folders import MANIFEST, find_model, is_ours
from dinomx_core.planning.origin import checkpoint_of, from_weights
from dinomx_core.planning.plan import Plan
from dinomx_core.planning.seeds import seed_of
from dinomx_core.training.contracts import (
    Augmentation,
    Backbone,
    Dataset,
    Evaluator,
    Loss,
    LossContext,
    Masking,
    Parallelism,
    Start,
    Strategy,
    Target,
    Teacher,
)
from dinomx_core.training.network import Network, Objective
from dinomx_core.training.optimizer import Optimizer


@dataclass
class Parts:
    """Everything that a run is made of."""

    plan: Plan
    device: torch.device
    student: Network
    teacher: Teacher
    frozen: dict[str, Network]
    losses: dict[str, Loss]
    strategies: dict[str, Strategy]
    objective: nn.Module
    parallelism: Parallelism
    optimizer: Optimizer
    data: Dataset
    augmentation: Augmentation
    masking: Masking | None
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
        torch.manual_seed(seed_of(plan.seed, "init", "backbone"))
        backbone = construct(spec.backbone, plan.backbone, max(plan.preprocessing.crop))
        heads = {}
        for label in dict.fromkeys(r.head for r in plan.requests if r.network == name and r.head):
            torch.manual_seed(seed_of(plan.seed, "init", "head", label))
            heads[label] = construct(spec.heads[label], plan.backbone.width)
    return Network(backbone, heads)


def build(plan: Plan) -> Parts:
    """Build every part of a run."""
    spec = plan.spec
    device = make_device(plan)
    if device.type == "cpu":
        torch.set_num_threads(spec.run.threads or plan.env.cores)
    student = build_network(plan, "student")
    start = take_over(plan, student) if plan.start else with_heads(student, student.backbone.warm_start())
    strategies = {label: construct(chosen) for label, chosen in (*spec.strategies.items(), ("teacher", spec.teacher))}
    for strategy in strategies.values():
        strategy.adapt(student.backbone)
    student.backbone.checkpoint_blocks = spec.run.activation_checkpointing
    student.to(device).train()
    teacher = make_teacher(plan, student, strategies)
    if plan.start and teacher.network is not student:
        load_part(teacher.network, checkpoint_of(Path(plan.start))[0], "teacher")
    frozen = {network.name: make_frozen(plan, network, teacher, device) for network in plan.frozen.values()}
    parallelism = construct(spec.parallelism, device)
    losses = {}
    for label, chosen in spec.losses.items():
        context = LossContext(plan.heads, plan.backbone.width, parallelism, partial(_target, parallelism))
        losses[label] = construct(chosen, context).to(device)
    if plan.start:
        take_over_losses(losses, checkpoint_of(Path(plan.start))[0])
    networks = {"student": student, **frozen}
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
        frozen=frozen,
        losses=losses,
        strategies=strategies,
        objective=objective,
        parallelism=parallelism,
        optimizer=Optimizer(student, losses, spec.optimizer, freeze, parallelism, fp16),
        data=construct(spec.data),
        augmentation=construct(spec.augmentation, plan.data.channels),
        masking=construct(spec.masking) if spec.masking else None,
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


def make_frozen(plan: Plan, wanted: Frozen, teacher: Teacher, device: torch.device) -> Network:
    """A further network, with the weights of its source, that nothing trains."""
    network = build_network(plan, wanted.name)
    if wanted.source == "start":
        network.backbone.load_state_dict(teacher.network.backbone.state_dict())
    else:
        load_source(plan, network.backbone, Path(wanted.source).expanduser())
    return network.to(device).requires_grad_(False).eval()


def load_source(plan: Plan, backbone: Backbone, source: Path) -> None:
    """The weights of a run, checkpoint or export, or of a folder or file that this kind of backbone starts from. Raises DataError
    when they do not fit."""
    if is_ours(source):
        place = find_model(source, "teacher")
        if (place / MANIFEST).is_file():
            load_backbone(backbone, place, "teacher")
        else:
            backbone.load(place)
        return
    chosen = plan.spec.backbone
    options = from_weights(chosen, str(source))
    size = max(plan.preprocessing.crop)
    other = attribute(chosen.component)(options, chosen.component.shape(options, plan.data.channels, size), size)
    other.warm_start()
    try:
        backbone.load_state_dict(other.state_dict())
    except RuntimeError as error:
        raise DataError(f"{source}: does not fit the backbone: {first_line(error)}") from None


def take_over(plan: Plan, student: Network) -> Start:
    """The student's weights of another run. Heads that it does not have stay as they are, fresh."""
    place, _ = checkpoint_of(Path(plan.start))
    loaded, fresh = load_part(student, place, "student")
    text = f"{loaded} tensors of the student loaded from step {place.name}"
    return Start(plan.start, text + (f"; fresh: {', '.join(f'head.{label}' for label in fresh)}" if fresh else ""))


def take_over_losses(losses: dict[str, Loss], place: Path) -> None:
    """What losses of the same label keep (centres of targets), where it has the same sizes."""
    saved = load_file(place / "losses.safetensors")
    for label, loss in losses.items():
        theirs = {name[len(label) + 1 :]: tensor for name, tensor in saved.items() if name.startswith(f"{label}.")}
        ours = loss.state_dict()
        if {name: tensor.shape for name, tensor in theirs.items()} == {name: t.shape for name, t in ours.items()}:
            loss.load_state_dict(theirs)


def load_part(network: Network, place: Path, name: str) -> tuple[int, list[str]]:
    """One network of a checkpoint: its backbone whole, and the heads that both have. Returns the number of tensors and the labels of
    the heads that are left as they were; raises DataError when something does not fit."""
    try:
        saved = load_file(place / f"{name}.safetensors")
        fresh = [label for label in network.heads if not any(key.startswith(f"heads.{label}.") for key in saved)]
        wanted = {
            key for key in network.state_dict() if not key.startswith(tuple(f"heads.{label}." for label in fresh))
        }
        network.load_state_dict({key: saved[key] for key in wanted}, strict=False)
    except (OSError, KeyError, RuntimeError, SafetensorError) as error:
        raise DataError(f"{place}: does not fit this run: {first_line(error)}") from None
    return len(wanted), fresh


def load_backbone(backbone: Backbone, folder: Path, network: str) -> None:
    """One network's backbone of a checkpoint. Raises DataError when it is not there or does not fit."""
    file = folder / f"{network}.safetensors"
    if network == "teacher" and not file.exists():
        file = folder / "student.safetensors"  # a run without a second network: the student teaches itself
    if not file.exists():
        there = ", ".join(sorted(f.stem for f in folder.glob("*.safetensors") if f.stem in ("student", "teacher")))
        raise DataError(f'{folder}: holds no network "{network}", only {there or "none"}')
    try:
        head = "backbone."
        backbone.load_state_dict(
            {k[len(head) :]: tensor for k, tensor in load_file(file).items() if k.startswith(head)}
        )
    except (SafetensorError, RuntimeError, OSError) as error:
        raise DataError(f"{file}: cannot be loaded: {first_line(error)}") from None


def first_line(error: BaseException) -> str:
    """What an error says, without its details."""
    return str(error).strip().partition("\n")[0]


def with_heads(student: Network, start: Start | None) -> Start | None:
    """Give the student's heads the weights that came beside the backbone's, where they fit, and say of each what was done."""
    if start is None:
        return None
    said = []
    for label, head in student.heads.items():
        theirs, ours = start.heads.get(label), head.state_dict()
        if theirs is None:
            said.append(f"head.{label}: fresh, the weights have none")
        elif {name: tensor.shape for name, tensor in theirs.items()} != {name: t.shape for name, t in ours.items()}:
            rows = theirs.get("last_layer.weight", theirs.get("last_layer.weight_v"))
            sizes = "other sizes" if rows is None else f"{rows.shape[0]} prototypes of {rows.shape[1]} features"
            said.append(f"head.{label}: fresh, the weights' has {sizes}")
        else:
            head.load_state_dict(dict(theirs))
            said.append(f"head.{label}: loaded")
    return replace(start, report="; ".join([start.report, *said]), heads={})


@torch.no_grad()
def copy_teacher(parts: Parts, name: str) -> None:
    """A further network takes over the teacher's weights."""
    parts.frozen[name].backbone.load_state_dict(parts.teacher.network.backbone.state_dict())


def _target(parallelism: Parallelism, chosen: Chosen, outputs: int) -> Target:
    return construct(chosen, outputs, parallelism)
