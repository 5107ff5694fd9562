"""A network: one backbone, its heads by label, and the union of requests run once. And the objective that wraps two of them."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dinomx_core.declare.facts import (
    Request,
)
from dinomx_core.training.contracts import Backbone, Loss, Scheduled
from dinomx_core.training.flow import Tokens, Views
from dinomx_core.training.health import feature_metrics


class Network(nn.Module):
    """A backbone with heads. Student, teacher and any further frozen network are each one of these."""

    def __init__(self, backbone: Backbone, heads: Mapping[str, nn.Module]):
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleDict(heads)
        self.features: Tensor | None = None  # (V * B, D): summaries of the first view of the last forward, for health

    def parts(self) -> dict[str, nn.Module]:
        """The sub-networks that clipping "network" and the plan count apart."""
        return {"backbone": self.backbone, **{f"head.{label}": head for label, head in self.heads.items()}}

    def forward(self, requests: Iterable[Request], views: Views) -> dict[Request, Any]:
        """Each view goes through the backbone once a masking, each head once over the rows of all its requests."""
        requests = list(requests)
        passes: dict[tuple, Any] = {}
        for request in requests:
            key = (request.view, request.masking)
            layers = max(r.layers for r in requests if (r.view, r.masking) == key)
            if key not in passes:
                pixels, mask = views.pixels[request.view], views.masks.get(request.view)
                mask = None if request.masking == "none" or mask is None else mask.flatten(0, 1)
                # Where every request is for class tokens, the last block's patches are nobody's.
                short = all(r.select == "cls" for r in requests if (r.view, r.masking) == key)
                passes[key] = self.backbone(pixels.flatten(0, 1), mask, request.masking, layers, short)
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

    def __init__(self, networks: Mapping[str, Network], losses: Mapping[str, Loss], requests: tuple[Request, ...]):
        super().__init__()
        self.networks = nn.ModuleDict(networks)
        self.losses = nn.ModuleDict(losses)
        self.requests = requests

    def forward(
        self, views: Views, values: Mapping[str, Scheduled], watch: bool = False
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The weighted total of the losses, and the numbers to log: `loss/<label>` and `<label>/<metric>`.

        With `watch` also spread and rank of the teacher's features, or the student's where there is no other network.
        """
        outputs: dict[Request, Any] = {}
        for name, network in self.networks.items():
            wanted = [request for request in self.requests if request.network == name]
            with torch.set_grad_enabled(name == "student" and torch.is_grad_enabled()):
                outputs.update(network(wanted, views))
        total: Tensor | float = 0.0
        metrics: dict[str, Tensor | float] = {}
        if watch:
            watched = self.networks["teacher" if "teacher" in self.networks else "student"].features
            metrics.update(feature_metrics(watched))
        for label, loss in self.losses.items():
            result = loss(outputs, views, values[label])
            total = total + values[label]["weight"] * result.value
            metrics[f"loss/{label}"] = result.value.detach()
            metrics.update({f"{label}/{name}": value for name, value in result.metrics.items()})
        return total, metrics
