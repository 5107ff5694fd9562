"""Plan -> live objects, in one fixed order: processes, backbone, strategies, heads, teacher, losses, wrapping, optimiser, data."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from dinomx_core.declare.values import Chosen
from dinomx_core.errors import ConfigError, DataError, Problem
from dinomx_core.folders import is_ours
from dinomx_core.planning.origin import Origin, checkpoint_of
from dinomx_core.planning.plan import Further, Plan, within
from dinomx_core.planning.seeds import seed_of
from dinomx_core.training.backbone import Backbone, Start
from dinomx_core.training.construct import construct
from dinomx_core.training.contracts import (
    Augmentation,
    Dataset,
    Evaluator,
    Intensity,
    Loss,
    LossContext,
    Masking,
    Parallelism,
    Strategy,
    Target,
    Teacher,
)
from dinomx_core.training.memory import narrow, recompute
from dinomx_core.training.network import Network, Objective
from dinomx_core.training.opening import first_line, load_heads, load_losses, merged, opened, rebuilt, take_heads
from dinomx_core.training.optimizer import Optimizer


@dataclass
class Parts:
    """Everything that a run is made of."""

    plan: Plan
    device: torch.device
    student: Network
    teacher: Teacher
    further: dict[str, Network]
    base: dict[str, nn.Parameter]  # of the student's backbone: never train, and are shared with the teacher
    digests: dict[str, str]  # of what never changes, as they are needed: "base", and networks of other shapes by name
    losses: dict[str, Loss]
    strategies: dict[str, Strategy]
    objective: nn.Module
    parallelism: Parallelism
    optimizer: Optimizer
    data: Dataset
    augmentation: Augmentation
    masking: Masking | None
    intensity: Intensity
    evaluators: dict[str, Evaluator]
    start: Start | None


def make_device(plan: Plan) -> torch.device:
    """The plan's device. Raises ConfigError when torch cannot use it."""
    usable = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not usable[plan.device]:
        message = f'torch {torch.__version__} cannot use "{plan.device}" here; set run.device = "cpu" or install a torch that can'
        raise ConfigError([Problem(message, "run.device")])
    return torch.device(plan.device)


def build_backbone(plan: Plan) -> Backbone:
    """The student's kind of backbone, freshly initialised from the run's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(plan.seed, "init", "backbone"))
        return construct(plan.spec.backbone, plan.backbone, max(plan.preprocessing.crop))


def with_heads(plan: Plan, name: str, backbone: Backbone) -> Network:
    """A network with the heads that requests of it name, freshly initialised from the run's seed."""
    heads = {}
    with torch.random.fork_rng(devices=[]):
        for label in dict.fromkeys(r.head for r in plan.requests if r.network == name and r.head):
            torch.manual_seed(seed_of(plan.seed, "init", "head", label))
            heads[label] = construct(plan.spec.heads[label], backbone.width)
    return Network(backbone, heads)


def build(plan: Plan) -> Parts:
    """Build every part of a run."""
    spec = plan.spec
    parallelism: Parallelism = construct(spec.parallelism, make_device(plan))
    if parallelism.device.type == "cpu":
        here = plan.env.world.local_size if plan.env.world else 1
        torch.set_num_threads(spec.run.threads or max(1, plan.env.cores // here))
    strategies = {label: construct(chosen) for label, chosen in (*spec.strategies.items(), ("teacher", spec.teacher))}
    with parallelism.placing():
        student, start = make_student(plan, strategies, parallelism.fills)
        teacher = make_teacher(plan, student, strategies)
        if plan.start and teacher.network is not student and not parallelism.fills:
            take_over_teacher(plan, teacher.network)
        recompute(student.backbone, spec.run.recompute, spec.run.recompute_every)
        further = {
            f.network.name: make_further(plan, f, teacher, student, strategies, parallelism.fills)
            for f in plan.networks
        }
        losses = make_losses(plan, parallelism)
    networks = {"student": student, **further}
    if "teacher" not in networks and any(r.network == "teacher" for r in plan.requests):
        networks["teacher"] = teacher.network
    if spec.run.precision == "float64":
        for module in [*networks.values(), *losses.values(), teacher.network]:
            nn.Module.double(module)
    watched = "teacher" if networks.get("teacher") is teacher.network else "student"
    beside = [] if teacher.network in networks.values() else [teacher.network]
    objective = parallelism.wrap(Objective(networks, losses, plan.requests, watched), beside)
    base = {name: p for name, p in student.backbone.named_parameters() if not p.requires_grad}
    theirs, ours = dict(student.named_parameters()), dict(teacher.network.named_parameters())
    teacher.pairs = [
        (parallelism.part(theirs[name]).tensor, parallelism.part(ours[name]).tensor) for name in teacher.follows
    ]
    freeze = plan.lengths["optimizer.freeze_last_layer"]
    fp16 = spec.run.precision == "fp16"
    return Parts(
        plan=plan,
        device=parallelism.device,
        student=student,
        teacher=teacher,
        further=further,
        base=base,
        digests={},
        losses=losses,
        strategies=strategies,
        objective=objective,
        parallelism=parallelism,
        optimizer=Optimizer(student, losses, spec.optimizer, freeze, parallelism, fp16),
        data=construct(spec.data),
        intensity=construct(spec.intensity),
        augmentation=construct(spec.augmentation, plan.data.channels),
        masking=construct(spec.masking) if spec.masking else None,
        evaluators={label: construct(chosen) for label, chosen in spec.evaluate.items()},
        start=start,
    )


def make_student(plan: Plan, strategies: Mapping[str, Strategy], filled: bool) -> tuple[Network, Start | None]:
    """The student, adapted, with the weights that it starts from unless it is `filled` with them later, and what to say of those."""
    student = with_heads(plan, "student", build_backbone(plan))
    start = None
    if not filled:
        start = take_over(plan, student) if plan.start else warm_start(student)
    adapt(plan, student.backbone, strategies)
    if plan.spec.run.frozen_weights == "bf16":
        narrow(student.backbone)
    return student.train(), start


def adapt(plan: Plan, backbone: Backbone, strategies: Mapping[str, Strategy]) -> None:
    """Let strategies change a backbone, in their order."""
    for label, strategy in strategies.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(plan.seed, "init", "strategy", label))
            strategy.adapt(backbone)


def make_losses(plan: Plan, parallelism: Parallelism) -> dict[str, Loss]:
    """The losses, with what those of the run that this one starts from kept."""
    shapes = {f.network.name: plan.shape_of(f.network.name) for f in plan.networks}
    losses: dict[str, Loss] = {}
    for label, chosen in plan.spec.losses.items():
        context = LossContext(plan.heads, plan.backbone.width, parallelism, partial(_target, parallelism), shapes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(plan.seed, "init", "loss", label))
            losses[label] = construct(chosen, context)
    if plan.start and not parallelism.fills:
        load_losses(losses, checkpoint_of(Path(plan.start))[0])
    return losses


def make_teacher(plan: Plan, student: Network, strategies: dict[str, Strategy]) -> Teacher:
    """The teacher of the first strategy that supplies one, frozen and in evaluation mode."""
    for strategy in strategies.values():
        teacher = strategy.teacher(student, lambda backbone: with_heads(plan, "teacher", backbone))
        if teacher is not None:
            if teacher.network is not student:
                teacher.network.requires_grad_(False).eval()
            return teacher
    raise ConfigError([Problem(f'strategy "{plan.spec.teacher.component.name}" supplies no teacher', "teacher.name")])


def make_further(
    plan: Plan, wanted: Further, teacher: Teacher, student: Network, strategies: Mapping[str, Strategy], filled: bool
) -> Network:
    """A further network that nothing trains, with the weights of its source unless it is `filled` with them later."""
    origin, source = wanted.origin, Path(wanted.network.source).expanduser()
    beside: Mapping[str, Mapping[str, Tensor]] = {}
    if origin is None:
        backbone = twin(teacher.network.backbone, [p for p in student.backbone.parameters() if not p.requires_grad])
    elif filled:
        backbone = emptied(origin)
    elif is_ours(source):
        backbone = opened(origin, Path(origin.place), "teacher")
    else:
        backbone, _ = rebuilt(origin)
        start = backbone.warm_start()
        beside = start.heads if start else {}
    if origin and takes_over(plan, wanted):  # what the teacher's weights need a place for; it changes nothing yet
        adapt(plan, backbone, strategies)
    network = with_heads(plan, wanted.network.name, backbone)
    if wanted.network.heads and not filled:
        if origin and is_ours(source):
            load_heads(network.heads, Path(origin.place), "teacher")
        else:
            take_heads(network.heads, beside)
    if origin:
        how = plan.preprocessing
        repeat = origin.channels if plan.data.channels == 1 else 1
        network.expect(how, *(origin.backbone.statistics or (how.mean, how.std)), repeat)
    network.requires_grad_(False).eval()
    if plan.spec.run.frozen_weights == "bf16":
        narrow(network.backbone)
    return network


def takes_over(plan: Plan, wanted: Further) -> bool:
    """Whether a further network takes over the teacher's weights at some step of the run."""
    lengths = within(plan.lengths, f"{wanted.owner}.")
    return any(wanted.network.refresh(done, lengths) for done in range(1, plan.steps + 1))


def emptied(origin: Origin) -> Backbone:
    """An origin's backbone without its weights, plain as `opened` gives it."""
    backbone, strategies = rebuilt(origin)
    return merged(backbone, strategies)


def takes_teacher(plan: Plan) -> bool:
    """Whether student and teacher have parameters in common, so that both take over what was the teacher's."""
    return plan.trains.shared > 0


def take_over(plan: Plan, student: Network) -> Start:
    """The weights of another run. Heads that it does not have stay as they are, fresh."""
    assert plan.origin
    place, _ = checkpoint_of(Path(plan.start))
    name = "teacher" if takes_teacher(plan) else "student"
    take_backbone(student.backbone, opened(plan.origin, place, name), place)
    fresh = load_heads(student.heads, place, "student")
    text = f"{len(student.state_dict())} tensors of the {name} loaded from step {place.name}"
    return Start(plan.start, text + (f"; fresh: {', '.join(f'head.{label}' for label in fresh)}" if fresh else ""))


def take_over_teacher(plan: Plan, teacher: Network) -> None:
    """The same for the teacher, where it has weights of its own."""
    assert plan.origin
    place, _ = checkpoint_of(Path(plan.start))
    if not takes_teacher(plan):
        take_backbone(teacher.backbone, opened(plan.origin, place, "teacher"), place)
    load_heads(teacher.heads, place, "teacher")


def take_backbone(ours: Backbone, theirs: Backbone, place: Path) -> None:
    """All weights of another backbone. Raises DataError when they do not fit."""
    try:
        ours.load_state_dict(theirs.state_dict())
    except RuntimeError as error:
        raise DataError(f"{place}: does not fit this run: {first_line(error)}") from None


def warm_start(student: Network) -> Start | None:
    """The weights that the backbone's options name, and the heads beside them; what was done is said."""
    start = student.backbone.warm_start()
    if start is None:
        return None
    return replace(start, report="; ".join([start.report, *take_heads(student.heads, start.heads)]), heads={})


def twin(backbone: Backbone, shared: Iterable[nn.Parameter]) -> Backbone:
    """A copy of a backbone that has some of its parameters in common with it."""
    return copy.deepcopy(backbone, {id(parameter): parameter for parameter in shared})


@torch.no_grad()
def copy_teacher(parts: Parts, name: str) -> None:
    """A further network takes over the teacher's weights."""
    theirs = parts.teacher.network.backbone.state_dict()
    for key, tensor in parts.further[name].backbone.state_dict().items():
        parts.parallelism.part(tensor).tensor.copy_(parts.parallelism.part(theirs[key]).tensor)


def _target(parallelism: Parallelism, chosen: Chosen, outputs: int) -> Target:
    return construct(chosen, outputs, parallelism)
