"""FLOPs and memory of a step, worked out from sizes alone.

FLOPs are those of the matrix products when every block runs once for all tokens: recomputation and dropped tokens are not
counted. Memory is an estimate.
"""

import attrs

from dinomx_core.declare.facts import (
    BackboneShape,
    HeadShape,
    Request,
    View,
)

BACKWARD = 3  # forward plus a backward pass of twice its work
# Floats kept for the backward pass a token and block, in units of the width: inputs of two norms, of the query/key/value,
# output and first MLP products (5), query, key, value (3), the attention's result (1); then input and output of the
# activation, each of the MLP's width.
KEPT_WIDTHS, KEPT_MLP_WIDTHS = 9, 2


@attrs.frozen
class Cost:
    """Figures of one step on one process: FLOPs of all its images, bytes of weights, optimiser state and kept activations."""

    flops: float
    parameter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int

    @property
    def memory_bytes(self) -> int:
        """Estimated peak."""
        return self.parameter_bytes + self.gradient_bytes + self.optimizer_bytes + self.activation_bytes


def estimate(
    backbone: BackboneShape,
    heads: dict[str, HeadShape],
    requests: tuple[Request, ...],
    views: dict[str, View],
    micro: int,
    images: int,
    precision: str,
    checkpointing: bool,
) -> Cost:
    """Cost of a step of `images` images in micro-batches of `micro`."""
    flops, kept = 0.0, 0.0
    bytes_a_number = 4 if precision == "float32" else 2
    for network, view, _ in dict.fromkeys((r.network, r.view, r.masking) for r in requests):
        crops, tokens = views[view].count, backbone.tokens(views[view].size)
        factor = BACKWARD if network == "student" else 1
        flops += images * crops * backbone.forward_flops(views[view].size) * factor
        if network == "student":
            a_block = KEPT_WIDTHS * backbone.width + KEPT_MLP_WIDTHS * backbone.mlp_width
            blocks = backbone.depth * backbone.width + a_block if checkpointing else backbone.depth * a_block
            kept += micro * crops * tokens * blocks * bytes_a_number
    for request in requests:
        if request.head:
            rows = views[request.view].count * (
                1 if request.select == "cls" else backbone.tokens(views[request.view].size)
            )
            head = heads[request.head]
            flops += images * rows * 2 * head.parameters * (BACKWARD if request.network == "student" else 1)
            kept += micro * rows * head.outputs * 4 * 2
    student = backbone.parameters + sum(h.parameters for n, h in heads.items() if _used(n, "student", requests))
    others = {r.network for r in requests} - {"student"}
    frozen = sum(
        backbone.parameters + sum(h.parameters for n, h in heads.items() if _used(n, other, requests))
        for other in others
    )
    return Cost(flops, 4 * (student + frozen), 4 * student, 8 * student, round(kept))


def _used(head: str, network: str, requests: tuple[Request, ...]) -> bool:
    return any(r.head == head and r.network == network for r in requests)
