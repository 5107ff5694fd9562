"""FLOPs and memory of a step, worked out from sizes alone.

FLOPs are those of the matrix products when every block runs once for all tokens: recomputation, adapters and dropped tokens are
not counted. Memory is an estimate.
"""

from collections.abc import Callable, Mapping

import attrs

from dinomx_core.declare.facts import (
    BackboneShape,
    HeadShape,
    Request,
    View,
)
from dinomx_core.declare.processes import Division, Load
from dinomx_core.planning.spec import RunOptions
from dinomx_core.planning.trained import Trains

BACKWARD = 3  # forward, gradients of what goes in, gradients of the weights: each of the same work
# Floats kept for the backward pass a token and block, in units of the width: inputs of two norms, of the query/key/value,
# output and first MLP products (5), query, key, value (3), the attention's result (1); then input and output of the
# activation, each of the MLP's width.
KEPT_WIDTHS, KEPT_MLP_WIDTHS = 9, 2
# Of these, without the inputs of products whose weights are frozen.
FROZEN_WIDTHS, FROZEN_MLP_WIDTHS = 6, 1


@attrs.frozen
class Batch:
    """How a step's images are divided: `images` = world_size x accumulation x micro."""

    images: int
    world_size: int
    accumulation: int
    micro: int


@attrs.frozen
class Cost:
    """Figures of one step: FLOPs of all its images; and of one process the bytes of weights, gradients, optimiser state, kept activations,
    of what passes through it for a moment, and of what it sends."""

    flops: float
    parameter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    passing_bytes: int
    sent_bytes: int

    @property
    def memory_bytes(self) -> int:
        """Estimated peak of a process."""
        state = self.parameter_bytes + self.gradient_bytes + self.optimizer_bytes
        return state + self.activation_bytes + self.passing_bytes


def estimate(
    backbone: BackboneShape,
    heads: dict[str, HeadShape],
    requests: tuple[Request, ...],
    views: dict[str, View],
    batch: Batch,
    run: RunOptions,
    trains: Trains,
    others: Mapping[str, BackboneShape],
    divide: Callable[[Load], Division],
) -> Cost:
    """Cost of a step; `others`: shapes of networks that are not the student's; `divide`: what each process holds and sends."""
    micro, images = batch.micro, batch.images
    flops, kept = 0.0, 0.0
    bytes_a_number = 4 if run.precision == "float32" else 2
    moving = 1 - max(0, trains.prefix - 1) / backbone.depth  # share of the blocks that gradients go through
    trained = min(1.0, trains.share / moving)
    widths, mlp_widths = (
        frozen + (whole - frozen) * trained
        for frozen, whole in ((FROZEN_WIDTHS, KEPT_WIDTHS), (FROZEN_MLP_WIDTHS, KEPT_MLP_WIDTHS))
    )
    plain = widths * backbone.width + mlp_widths * backbone.mlp_width
    sparse = {"none": plain, "mlp": (widths + 1 - trained) * backbone.width, "blocks": backbone.width}[run.recompute]
    a_block = plain + (sparse - plain) / run.recompute_every
    passes = dict.fromkeys((r.network, r.view, r.masking) for r in requests)
    for network, view, masking in passes:
        crops, tokens = views[view].count, backbone.tokens(views[view].size)
        factor = 1.0
        if network == "student":
            factor = 1 + moving + min(moving, trains.share)
        elif (
            network == "teacher"
            and network not in others
            and masking == "none"
            and ("student", view, masking) in passes
        ):
            factor = moving  # what never trains runs once for both
        flops += images * crops * others.get(network, backbone).forward_flops(views[view].size) * factor
        if network == "student":
            running = plain if run.recompute == "blocks" else 0  # the one that is computed again
            floats = tokens * (backbone.depth * a_block + running)
            if backbone.convolutions:
                floats = backbone.convolutions.kept * views[view].size.height * views[view].size.width
            kept += micro * crops * floats * moving * bytes_a_number
    for request in requests:
        if request.head:
            rows = views[request.view].count * (
                1 if request.select == "cls" else backbone.tokens(views[request.view].size)
            )
            head = heads[request.head]
            flops += images * rows * 2 * head.parameters * (BACKWARD if request.network == "student" else 1)
            kept += micro * rows * head.outputs * 4 * 2
    heads_of = lambda network: sum(h.parameters for n, h in heads.items() if _used(n, network, requests))  # noqa: E731
    learnt = trains.trainable + heads_of("student")
    held = trains.total + heads_of("student")
    for network in {r.network for r in requests} - {"student"}:
        held += heads_of(network) + (others[network].parameters if network in others else trains.trainable)
    if "teacher" in others:  # the moving average beside it
        held += trains.trainable
    narrow = 0
    if run.frozen_weights == "bf16":
        narrow = 2 * (trains.shared + sum(other.parameters for other in others.values()))
    unit = max([backbone.parameters // backbone.depth, *(head.parameters for head in heads.values())])
    still = held - learnt - trains.shared
    part = divide(Load(learnt, trains.shared, still, unit, batch.world_size, batch.accumulation))
    parameters, gradients, moments = (round(part.held * size) for size in (4 * held - narrow, 4 * learnt, 8 * learnt))
    return Cost(flops, parameters, gradients, moments, round(kept), round(part.passing), round(part.sent))


def _used(head: str, network: str, requests: tuple[Request, ...]) -> bool:
    return any(r.head == head and r.network == network for r in requests)
