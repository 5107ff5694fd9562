"""A plan as text."""

from collections.abc import Iterator

from dinomx_core.planning.devices import BUSY, Device, forecast
from dinomx_core.planning.fit import Proposal, largest, same_batch
from dinomx_core.planning.plan import Plan
from dinomx_core.planning.trained import Trains


def amount(number: float, unit: str = "") -> str:
    """1234567 -> "1.23 M"."""
    for size, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g} {letter}{unit}"
    return f"{number:g} {unit}".rstrip()


def trained(trains: Trains) -> str:
    """What trains of the backbone, in words."""
    text = f"{amount(trains.trainable)} of the backbone's {amount(trains.total)} parameters ({trains.share:.2%})"
    if trains.later:
        text += f", {amount(trains.later)} of them later"
    if trains.prefix:
        count = "block" if trains.prefix == 2 else f"{trains.prefix - 1} blocks"
        blocks = f" and the first {count}" if trains.prefix > 1 else ""
        text += f"; no gradients in the embeddings{blocks}"
    return text


def lines(plan: Plan, device: Device | None = None) -> Iterator[str]:
    """The plan for a reader: what will happen, what it costs, every value with its source, warnings last. device: the GPU that it is
    imagined on."""
    spec, batch, run = plan.spec, plan.batch, plan.spec.run
    name = f"{run.name}, stage {plan.stage}" if plan.stage else run.name
    yield f"Plan of {name}: {', '.join(spec.losses)} on {spec.backbone.component.name}, into {plan.run_dir}"
    yield ""
    yield (
        f"  data        {plan.data.count} images, {plan.data.channels} channels"
        + (
            f", {len(plan.data.classes)} classes"
            if plan.data.classes
            else ", numbers as labels"
            if plan.data.labelled
            else ", no labels"
        )
    )
    yield f"  steps       {plan.steps} ({run.steps}) = {plan.passes:.1f} passes over the data"
    yield (
        f"  batch       {batch.images} images a step = {batch.world_size} process(es) x {batch.accumulation} accumulated x "
        f"{batch.micro}"
    )
    scaled = (
        f" (given {spec.optimizer.lr.peak:g} x {plan.lr_scale:g}, {spec.optimizer.scaling})"
        if plan.lr_scale != 1
        else ""
    )
    yield f"  lr          {plan.curves['optimizer.lr'].peak:g}{scaled}"
    yield f"  precision   {run.precision} on {plan.device}, {plan.env.cores} cores"
    for view in plan.views:
        yield f"  view        {view.name}: {view.count} x {view.size} px, {plan.backbone.tokens(view.size)} tokens each"
    if plan.start:
        yield f"  start       student, teacher and heads of {plan.start}"
    for network in (further.network for further in plan.networks):
        yield f"  network     {network.name}: {'the teacher as the run starts' if network.source == 'start' else network.source}"
    yield f"  backbone    {amount(plan.backbone.parameters)} parameters"
    if plan.trains.shared or plan.trains.later:
        yield f"  trains      {trained(plan.trains)}"
    for label, head in plan.heads.items():
        yield f"  head        {label}: {amount(head.parameters)} parameters, {head.outputs} outputs"
    yield f"  compute     {amount(plan.cost.flops, 'FLOP')} a step"
    cost = plan.cost
    memory, kept = amount(cost.memory_bytes, "B"), amount(cost.activation_bytes, "B")
    a_process = " a process" if batch.world_size > 1 else ""
    yield f"  memory      about {memory}{a_process} (estimate), {kept} of it activations"
    if batch.world_size > 1:
        state = cost.parameter_bytes + cost.gradient_bytes + cost.optimizer_bytes
        yield f"  divided     {amount(state, 'B')} of weights, gradients and moments a process ({spec.parallelism.component.name})"
        yield f"  sent        about {amount(cost.sent_bytes, 'B')} a process and step"
    if device:
        time = forecast(plan, device)
        yield (
            f"  time        about {time.computing + time.sending:.3g} s a step at the most: {time.computing:.3g} s computing (at "
            f"{BUSY:.0%} of the GPU's peak), {time.sending:.3g} s sending; sending is at most {time.share:.0%}, less what overlaps"
        )
        if cost.memory_bytes > device.memory:
            yield f"  too much    the GPU has {amount(device.memory, 'B')}; see --fit"
    yield ""
    yield "Schedules (by step)"
    for key, curve in plan.curves.items():
        yield f"  {key:<34} {curve}  [first {curve.at(0):g}, last {curve.at(plan.steps - 1):g}]"
    yield ""
    yield "Values and where they came from"
    for value in plan.values:
        yield f"  {value.key:<42} {value.value!s:<24} {value.source}"
    if plan.warnings:
        yield ""
        yield from (f"warning: {warning}" for warning in plan.warnings)


def fitting(plan: Plan, memory: float) -> Iterator[str]:
    """What fits into so many bytes a process, for a reader."""

    def line(found: Proposal) -> str:
        settings = " ".join(f"--set {setting}" for setting in found.settings(plan)) or "as it is"
        return f"{settings}  (about {found.bytes / 2**30:.2f} GiB)"

    yield f"Fit into {memory / 2**30:.4g} GiB a process, a tenth of it left free"
    same = same_batch(plan, memory)
    yield f"  the same batch of {plan.batch.images}: {line(same) if same else 'nothing makes it fit; take a smaller one or smaller crops'}"
    for found in largest(plan, memory):
        yield f"  the largest batch, {found.batch_size}: {line(found)}"
    yield "  Recomputing changes no number. With accumulation, what compares images (KoLeo, Sinkhorn-Knopp) sees micro-batches."
