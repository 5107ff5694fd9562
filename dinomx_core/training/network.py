"""A network: one backbone, its heads by label, and the union of requests run once. And the objective that wraps two of them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dinomx_core.declare.facts import Preprocessing, Request
from dinomx_core.declare.faults import shown
from dinomx_core.errors import PluginError
from dinomx_core.training.backbone import Backbone
from dinomx_core.training.contracts import Loss, LossResult, Outputs, Scheduled
from dinomx_core.training.flow import Hidden, Tokens, Views
from dinomx_core.training.health import feature_metrics


class Network(nn.Module):
    """A backbone with heads. Student, teacher and any further frozen network are each one of these."""

    scale: Tensor | None
    shift: Tensor | None

    def __init__(self, backbone: Backbone, heads: Mapping[str, nn.Module]):
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleDict(heads)
        self.prefix = 0  # leading parts of the backbone without gradients: the embeddings, then blocks
        self.register_buffer("scale", None, persistent=False)
        self.register_buffer("shift", None, persistent=False)
        self.features: Tensor | None = None  # (V * B, D): summaries of the first view of the last forward, for health

    def parts(self) -> dict[str, nn.Module]:
        """The sub-networks that clipping "network" and the plan count apart."""
        return {"backbone": self.backbone, **{f"head.{label}": head for label, head in self.heads.items()}}

    def train(self, mode: bool = True) -> "Network":
        """As every module's; leading parts in which nothing trains stay in evaluation mode, so that they compute what the teacher's
        do. To be called whenever what requires gradients has changed."""
        super().train(mode)
        moving = (self.backbone.layer_of(name) for name, p in self.backbone.named_parameters() if p.requires_grad)
        self.prefix = min(moving, default=len(self.backbone.blocks) + 1)
        for name, module in self.backbone.named_modules() if self.prefix and mode else ():
            if name and self.backbone.layer_of(f"{name}.") < self.prefix:
                module.eval()
        return self

    def expect(self, how: Preprocessing, mean: Sequence[float], std: Sequence[float], repeat: int = 1) -> None:
        """Take pixels that were normalised as `how` says, and give them to the backbone as `mean` and `std` would have it; one channel
        `repeat` times."""
        ours, theirs, given, wanted = (
            torch.tensor(v, device="cpu").view(-1, 1, 1) for v in (how.std, std, how.mean, mean)
        )
        if repeat > 1 or not (torch.equal(ours, theirs) and torch.equal(given, wanted)):
            scale, shift = ours / theirs, (given - wanted) / theirs
            self.scale = scale.repeat(repeat, 1, 1) if len(scale) == 1 else scale
            self.shift = shift.repeat(repeat, 1, 1) if len(shift) == 1 else shift

    def forward(
        self, requests: Iterable[Request], views: Views, begun: Mapping[str, tuple[Hidden, int]] | None = None
    ) -> dict[Request, Any]:
        """Each view goes through the backbone once a masking, each head once over the rows of all its requests. `begun`: what has come
        out of the first blocks, and how many, of views that are not masked."""
        requests, begun = list(requests), begun or {}
        passes: dict[tuple, Any] = {}
        for request in requests:
            key = (request.view, request.masking)
            layers = max(r.layers for r in requests if (r.view, r.masking) == key)
            if key not in passes:
                pixels, mask = views.pixels[request.view], views.masks.get(request.view)
                mask = None if request.masking == "none" or mask is None else mask.flatten(0, 1)
                # Where every request is for class tokens, the last block's patches are nobody's.
                short = all(r.select == "cls" for r in requests if (r.view, r.masking) == key)
                start = begun.get(request.view) if request.masking == "none" else None
                if self.scale is not None:
                    pixels = pixels * self.scale + self.shift
                passes[key] = self.backbone(
                    pixels.flatten(0, 1), mask, request.masking, layers, short, start,
                    channels=views.channels_of(request.view),
                )  # fmt: skip
        first = next(iter(passes.values()))
        self.features = (first[-1] if isinstance(first, tuple) else first).summary.detach()
        results: dict[Request, Any] = {}
        rows: dict[str, list[tuple[Request, Tensor]]] = {}
        for request in requests:
            tokens = passes[request.view, request.masking]
            last = tokens[-1] if isinstance(tokens, tuple) else tokens
            if request.select == "all" and request.head is None:
                results[request] = tokens[-request.layers :] if request.layers > 1 else last
            elif request.select == "all":
                results[request] = self.heads[request.head](last)
            elif request.head is None:
                results[request] = shaped(select_rows(last, request, views), request, views)
            else:
                rows.setdefault(request.head, []).append((request, select_rows(last, request, views)))
        for label, wanted in rows.items():
            logits = self.heads[label](torch.cat([row for _, row in wanted]))
            for (request, _), part in zip(wanted, logits.split([len(row) for _, row in wanted])):
                results[request] = shaped(part, request, views)
        return results


def shaped(rows: Tensor, request: Request, views: Views) -> Tensor:
    """Rows (M, K) by crop and image: (V, B, K) for "cls", (V, B, N, K) for "patches", as they are for "masked"."""
    if request.select == "masked":
        return rows
    count = views.pixels[request.view].shape[:2]
    return rows.unflatten(0, (*count, -1) if request.select == "patches" else count)


def select_rows(tokens: Tokens, request: Request, views: Views) -> Tensor:
    """The rows (M, D) that a request is for."""
    if request.select == "cls":
        return tokens.summary
    if request.select == "patches":
        return tokens.patches.flatten(0, 1)
    return tokens.patches[views.masks[request.view].flatten(0, 1)]


class Objective(nn.Module):
    """Student, frozen networks and losses behind one forward, the only door through which wrapped modules are entered."""

    def __init__(
        self,
        networks: Mapping[str, Network],
        losses: Mapping[str, Loss],
        requests: tuple[Request, ...],
        watched: str = "student",
    ):
        """watched: the network whose features are told with `watch`; "teacher" where that is the student's average."""
        super().__init__()
        self.networks = nn.ModuleDict(networks)
        self.losses = nn.ModuleDict(losses)
        self.requests, self.watched = requests, watched

    def begun(self, views: Views) -> dict[str, tuple[Hidden, int]]:
        """Views through what student and teacher have in common and nothing trains, for those that both see unmasked."""
        student = self.networks["student"]
        if self.watched != "teacher" or not student.prefix or student.backbone.random_embedding:
            return {}
        teacher, common = self.networks["teacher"], student.prefix
        for (name, ours), theirs in zip(student.backbone.named_parameters(), teacher.backbone.parameters()):
            if ours is not theirs:
                common = min(common, student.backbone.layer_of(name))
        seen = [
            {r.view for r in self.requests if (r.network, r.masking) == (name, "none")}
            for name in ("student", "teacher")
        ]
        layers = max((r.layers for r in self.requests), default=1)
        blocks = min(common - 1, len(student.backbone.blocks) - layers)
        if blocks < 0:
            return {}
        with torch.no_grad():
            return {
                view: (
                    teacher.backbone(views.pixels[view].flatten(0, 1), blocks=blocks, channels=views.channels_of(view)),
                    blocks,
                )
                for view in sorted(set.intersection(*seen))
            }

    def forward(
        self, views: Views, values: Mapping[str, Scheduled], watch: bool = False
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The weighted total of the losses, and the numbers to log: `loss/<label>` and `<label>/<metric>`.

        With `watch` also spread and rank of the watched network's features.
        """
        outputs: dict[Request, Any] = {}
        begun = self.begun(views)
        for name, network in self.networks.items():
            wanted = [request for request in self.requests if request.network == name]
            with torch.set_grad_enabled(name == "student" and torch.is_grad_enabled()):
                outputs.update(network(wanted, views, begun if name in ("student", "teacher") else None))
        total: Tensor | float = 0.0
        metrics: dict[str, Tensor | float] = {}
        if watch:
            metrics.update(feature_metrics(self.networks[self.watched].features))
        for label, loss in self.losses.items():
            result = computed(label, loss, outputs, views, values[label])
            total = total + values[label]["weight"] * result.value
            metrics[f"loss/{label}"] = result.value.detach()
            metrics.update({f"{label}/{name}": value for name, value in result.metrics.items()})
        return total, metrics


def computed(label: str, loss: Loss, outputs: Outputs, views: Views, values: Scheduled) -> LossResult:
    """What a loss says of a step; what it raises keeps its traceback and says whose it is. Raises PluginError where it gives something
    that cannot be added up or logged."""
    whose = f"[loss.{label}], computed by {type(loss).__module__}.{type(loss).__qualname__}"
    try:
        result = loss(outputs, views, values)
    except Exception as error:
        error.add_note(f"in {whose}")
        raise
    wrong = None
    if not isinstance(result, LossResult):
        wrong = f"gave {shown(result)}"
    elif not isinstance(result.value, Tensor) or result.value.ndim:
        wrong = f"has the value {shown(result.value)}"
    else:
        odd = (name for name, value in result.metrics.items() if not is_number(value))
        wrong = next((f"has the metric {name} = {shown(result.metrics[name])}" for name in odd), None)
    if wrong:
        raise PluginError(
            f"{whose}: {wrong}; it is to give LossResult(a tensor of no dimensions, single numbers by name)"
        )
    return result


def is_number(value: object) -> bool:
    """Whether a metric can be logged."""
    return value.numel() == 1 if isinstance(value, Tensor) else isinstance(value, int | float)
