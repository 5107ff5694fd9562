"""Is the run healthy? Figures about teacher and features, and verdicts in words, each with a remedy."""

import math
from bisect import insort
from collections.abc import Iterator
from statistics import fmean, median, pstdev
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.nn import functional as F

from dinomx_core.declare.figures import judged
from dinomx_core.planning.plan import Plan

MOST_ROWS = 1024  # features that one effective rank is taken over
HELD = 3  # looks in a row that a verdict must hold for
GRACE = 10  # looks at the start that no collapse is called in
UNIFORM = 0.99  # of ln K: above it the teacher tells images apart no more
ONE_HOT = 1.5  # prototypes: below it all images of a batch get the same one
RANK_LOST = 0.5  # of the largest effective rank so far
RANK_NONE = 1.5
GROWN = 3.0  # times what the student missed of the teacher once centering had settled
GRADIENT_GROWN = 30.0  # times the usual gradient norm
STILL = 0.1  # relative change, or one standard deviation between looks, below which nothing has moved
STILL_FROM = 0.5  # share of the run after which standing still is called
WORSE = 0.02  # relative loss of a figure against step 0


@torch.no_grad()
def assignment_metrics(probabilities: Tensor, cross_entropy: Tensor) -> dict[str, Tensor]:
    """What a loss over prototypes tells of its teacher.

    probabilities (M, K) of the teacher; cross_entropy: mean of -sum(p log q) over the same rows. Returns `teacher_entropy` as
    a share of ln K (1: uniform, 0: one-hot), `kl`, KL(teacher || student) in nats, and `prototypes`, the perplexity of the
    batch's mean assignment: how many prototypes are in use (1: all images get the same one).
    """
    entropy = torch.special.entr(probabilities).sum(-1).mean()
    used = torch.special.entr(probabilities.mean(0)).sum().exp()
    return {
        "teacher_entropy": entropy / math.log(probabilities.shape[-1]),
        "kl": cross_entropy.detach() - entropy,
        "prototypes": used,
    }


@torch.no_grad()
def feature_metrics(features: Tensor) -> dict[str, Tensor]:
    """Spread and rank of features (M, D).

    `feature_std`: mean standard deviation of the L2-normalised features times sqrt(D), 1 where they point everywhere, 0 where
    all point the same way (Chen & He 2021). `effective_rank`: exp of the entropy of the singular values' shares (RankMe,
    Garrido et al. 2023), at most min(M, D).
    """
    features = features[:MOST_ROWS].float().nan_to_num()  # the loss tells of what is not finite
    unit = F.normalize(features, dim=1)
    spread = unit.std(0, correction=0).mean() * unit.shape[1] ** 0.5
    values = torch.linalg.svdvals(features)
    shares = values / values.sum().clamp_min(1e-12)
    return {"feature_std": spread, "effective_rank": torch.special.entr(shares).sum().exp()}


@attrs.frozen
class Verdict:
    """What is wrong with a run, since which step, and what to do. `fatal`: there is nothing to learn from going on."""

    name: str
    step: int
    message: str
    remedy: str
    fatal: bool = False

    def __str__(self) -> str:
        return f"{self.name}: {self.message}. {self.remedy}"


@attrs.define
class Look:
    """Means over the steps since the last look, and the features' figures at its end. `missed`: KL(teacher || student) summed over
    the losses that tell it, or else the loss."""

    step: int
    missed: float
    gradient: float
    entropy: dict[str, float]
    prototypes: dict[str, float]
    rank: float
    spread: float


class Health:
    """Reads the rows of a run as they are made, or as they were written, and calls each verdict once."""

    def __init__(self, plan: Plan, warm: bool):
        self.warm, self.steps = warm, plan.steps
        self.looks: list[Look] = []
        self.called: set[str] = set()
        self.since: list[dict[str, Any]] = []
        self.best_rank = 0.0  # the largest median of HELD looks in succession
        self.gradients: list[float] = []  # of all looks but the last HELD, sorted
        self.start: dict[str, float] = {}
        self.worse: dict[str, int] = {}

    def step(self, row: dict[str, Any]) -> list[Verdict]:
        """A metrics row in, new verdicts out."""
        self.since.append(row)
        if "effective_rank" not in row:
            return []
        self.looks.append(look_at(self.since))
        self.since = []
        if len(self.looks) >= HELD:
            self.best_rank = max(self.best_rank, median(look.rank for look in self.looks[-HELD:]))
        if len(self.looks) > HELD:
            insort(self.gradients, self.looks[-HELD - 1].gradient)
        return self._new(self._judge())

    def evaluated(self, step: int, figures: dict[str, float]) -> list[Verdict]:
        """An evaluation's figures in (the larger the better), new verdicts out: a warm start must not get worse."""
        if step == 0:
            self.start = dict(figures)
        return self._new(self._worse(step, figures)) if self.warm else []

    def _new(self, found: Iterator[Verdict]) -> list[Verdict]:
        fresh = list[Verdict]()
        for verdict in found:
            if verdict.name not in self.called:  # several figures may fall in one evaluation
                self.called.add(verdict.name)
                fresh.append(verdict)
        return fresh

    def _judge(self) -> Iterator[Verdict]:
        looks, last = self.looks, self.looks[-HELD:]
        if len(looks) > GRACE:
            yield from self._collapsed(last)
            best, now = self.best_rank, max(look.rank for look in last)
            if now < RANK_LOST * best or now < RANK_NONE:
                yield Verdict(
                    "rank falling", looks[-1].step,
                    f"the features' effective rank fell from {best:.1f} to {now:.1f}: they point ever fewer ways",
                    "Lower optimizer.lr or weight_decay, raise teacher.momentum, or add a regulariser such as KoLeo",
                    fatal=now < RANK_NONE,
                )  # fmt: skip
        if len(looks) > GRACE + 2 * HELD:
            first = median(look.missed for look in looks[GRACE : GRACE + HELD])
            usual = self.gradients[len(self.gradients) // 2]
            missed, gradient = min(look.missed for look in last), min(look.gradient for look in last)
            if missed > GROWN * first > 0 or gradient > GRADIENT_GROWN * usual > 0:
                yield Verdict(
                    "diverging", looks[-1].step,
                    f"what the student misses of its target went from {first:.3g} to {missed:.3g}, the gradient norm from "
                    f"{usual:.3g} to {gradient:.3g}",
                    "Lower optimizer.lr, lengthen its warm-up, or clip harder (optimizer.clip)", fatal=True,
                )  # fmt: skip
        if len(looks) >= 3 * GRACE and looks[-1].step + 1 >= STILL_FROM * self.steps:
            yield from self._still(looks, looks[-GRACE:])

    def _collapsed(self, last: list[Look]) -> Iterator[Verdict]:
        for label in last[-1].entropy:
            entropy = min(look.entropy.get(label, 0.0) for look in last)
            used = max(look.prototypes.get(label, math.inf) for look in last)
            if entropy > UNIFORM:
                yield Verdict(
                    f"collapse to uniform ({label})", last[-1].step,
                    f"the teacher gives every prototype the same probability (entropy {entropy:.3f} of its maximum)",
                    f"Lower loss.{label}.teacher_temperature, narrow the head's bottleneck, or lower optimizer.lr", fatal=True,
                )  # fmt: skip
            elif used < ONE_HOT:
                yield Verdict(
                    f"collapse to one prototype ({label})", last[-1].step,
                    f"the teacher gives all images of a batch the same prototype ({used:.2f} in use)",
                    f"Centre the targets (loss.{label}.target: a lower centering momentum, or Sinkhorn-Knopp), raise "
                    "teacher_temperature, or enlarge the batch", fatal=True,
                )  # fmt: skip

    def _still(self, looks: list[Look], last: list[Look]) -> Iterator[Verdict]:
        # Targets settle at the start of a run even where nothing learns; the features do not move by that.
        settled, begun = looks[GRACE : 2 * GRACE], looks[:GRACE]

        def moved(name: str, first: list[Look]) -> bool:
            before, after = ([getattr(look, name) for look in part] for part in (first, last))
            noise = max(pstdev(before), pstdev(after), STILL * abs(fmean(before)))
            return abs(fmean(after) - fmean(before)) > noise

        if not any(
            moved(*what) for what in (("missed", settled), ("gradient", settled), ("rank", begun), ("spread", begun))
        ):
            yield Verdict(
                "standing still", last[-1].step,
                f"neither loss nor gradient nor features have moved since step {settled[0].step}",
                "Raise optimizer.lr, shorten its warm-up, or see whether anything is trained at all (`dinomx plan`)",
            )  # fmt: skip

    def _worse(self, step: int, figures: dict[str, float]) -> Iterator[Verdict]:
        for name, value in figures.items():
            start = self.start.get(name)
            # a figure that was not finite is written as null
            if start is None or value is None or not judged(name):
                continue
            self.worse[name] = self.worse.get(name, 0) + 1 if value < start - WORSE * abs(start) else 0
            if self.worse[name] >= 2 or (self.worse[name] and step == self.steps):
                yield Verdict(
                    "worse than the start", step,
                    f"{name} fell from {start:.4f}, as the weights came, to {value:.4f}",
                    "Lower optimizer.lr, let the heads settle before the backbone moves, or train fewer parameters (LoRA, "
                    "freezing)",
                )  # fmt: skip


def look_at(rows: list[dict[str, Any]]) -> Look:
    """The rows since the last look as one."""

    def mean(name: str) -> float:
        found = [row[name] for row in rows if row.get(name) is not None]
        return fmean(found) if found else math.inf

    def labelled(end: str) -> dict[str, float]:
        return {key[: -len(end) - 1]: mean(key) for key in rows[-1] if key.endswith(f"/{end}")}

    end = rows[-1]
    entropy, used, kl = (labelled(name) for name in ("teacher_entropy", "prototypes", "kl"))
    # The loss of a run with prototypes rises while its teacher's entropy does; what is left to learn is the KL alone.
    missed = sum(kl.values()) if kl else mean("loss")
    return Look(end["step"], missed, mean("gradient_norm"), entropy, used, end["effective_rank"], end["feature_std"])
