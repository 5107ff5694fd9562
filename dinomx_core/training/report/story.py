"""What a run has told so far, and what the report says of it in figures and words. No torch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from dinomx_core.declare.figures import judged
from dinomx_core.folders import steps_in
from dinomx_core.planning.plan import Plan
from dinomx_core.planning.show import lines
from dinomx_core.progress import clock
from dinomx_core.training.report.chart import number
from dinomx_core.training.report.curves import Curve, Curves
from dinomx_core.training.report.told import LEFT_OUT, Telling

HEALTH = ("effective_rank", "feature_std", "gradient_norm")
SPEED = ("images_per_second", "seconds", "data_seconds")
SCHEDULED = ("lr", "weight_decay")
SCHEDULES = "Schedules"  # a title
FIRST = "knn"  # the evaluator that comes first


@attrs.frozen
class Tile:
    """A figure that is seen first: what it is, the figure, and a line below. `tone`: "good", "bad" or ""."""

    name: str
    figure: str
    told: str
    tone: str = ""


class Story:
    """Rows as they come, kept small."""

    def __init__(self, plan: Plan, folder: Path, telling: Telling):
        self.plan, self.folder, self.telling = plan, folder, telling
        self.metrics, self.evaluations = Curves(), Curves()
        self.verdicts: list[dict[str, Any]] = []
        self.best: dict[str, tuple[float, int]] = {}
        self.done, self.training, self.evaluating = 0, 0.0, 0.0

    def add(self, kind: str, row: dict[str, Any]) -> None:
        """A row of the run folder."""
        if kind == "health":
            self.verdicts.append(row)
        elif kind == "metrics":
            self.metrics.add(row)
            self.done, self.training = row["step"] + 1, self.training + row["seconds"]
        elif kind == "evaluations":
            figures = {name: value for name, value in row.items() if name != "seconds"}
            self.evaluations.add(figures)
            self.evaluating += row["seconds"]
            for name, value in figures.items():
                if name != "step" and value is not None and (name not in self.best or value > self.best[name][0]):
                    self.best[name] = (value, row["step"])

    def groups(self) -> Iterator[tuple[str, str, dict[str, Curve]]]:
        """Titles of figures that belong together, how they are read, and the figures; evaluations apart."""
        every = self.metrics.figures
        losses = {name: curve for name, curve in every.items() if name.partition("/")[0] == "loss"}
        speed = {name: every[name] for name in SPEED if name in every}
        schedules = {name: every[name] for name in SCHEDULED if name in every}
        taken = {*losses, *speed, *schedules}
        health = {name: every[name] for name in HEALTH if name in every}
        health |= {name: curve for name, curve in every.items() if name not in taken}
        yield "Losses", "", losses
        yield (
            "Health",
            "Entropy as a share of ln K (1: the teacher tells nothing apart, 0: one-hot); prototypes: how many are in use; effective rank "
            "and spread of the features (0: all alike).",
            health,
        )
        yield SCHEDULES, "", schedules
        yield "Speed", "", speed

    def evaluated(self) -> tuple[dict[str, Curve], dict[str, Curve]]:
        """Figures of evaluations, k-NN first, and those that are parts of them."""
        first = [label for label, chosen in self.plan.spec.evaluate.items() if chosen.component.name == FIRST]
        order = sorted(self.evaluations.figures, key=lambda name: name.partition("/")[0] not in first)
        parts = {name for name in order if judged(name) and name.count("/") > 1}
        every = self.evaluations.figures
        return {n: every[n] for n in order if n not in parts}, {n: every[n] for n in order if n in parts}

    def tiles(self, state: str, reason: str) -> Iterator[Tile]:
        """What is seen first."""
        plan, steps = self.plan, self.plan.steps
        tone = {"done": "good", "failed": "bad"}.get(state, "")
        yield Tile("State", state, reason or ("all steps done" if state == "done" else "as of this page"), tone)
        images = self.done * plan.batch.images
        passes = images / max(1, plan.data.count)
        yield Tile("Steps", f"{self.done:,} / {steps:,}", f"{images:,} images seen, {passes:.3g} passes over the data")
        told = f"evaluations {clock(self.evaluating)} more" if self.evaluating else "in steps"
        if state == "running" and self.done:
            told += f"; {clock(self.training / self.done * (steps - self.done))} left"
        yield Tile("Training time", clock(self.training), told)
        shown = [name for name in self.evaluated()[0] if judged(name)]
        if shown:
            value, step = self.best[shown[0]]
            last = self.evaluations.figures[shown[0]].last[1]
            yield Tile(f"Best {shown[0]}", f"{value:.4g}", f"at step {step:,}; {last:.4g} at the last evaluation")
        if curve := self.metrics.figures.get("loss"):
            means = list(curve.smoothed())
            yield Tile("Loss", f"{means[-1][1]:.4g}", f"smoothed; {means[0][1]:.4g} at the start")
        if curve := self.metrics.figures.get("images_per_second"):
            yield Tile(
                "Images a second", number(list(curve.smoothed())[-1][1]), f"{plan.spec.run.precision} on {plan.device}"
            )
        names = ", ".join(verdict["name"] for verdict in self.verdicts)
        yield Tile(
            "Health",
            counted(len(self.verdicts)),
            names or "nothing found wrong",
            "bad" if names else "good",
        )

    def facts(self) -> Iterator[tuple[str, str]]:
        """The plan's main numbers."""
        rows = list(lines(self.plan))[2:]
        for line in rows[: rows.index("")]:
            name, _, text = line.strip().partition(" ")
            if name not in ("start", "network"):
                yield name, text.strip()
        yield "data digest", self.plan.data.digest or "none: the options alone say which images these are"
        versions = {"python": self.plan.env.python, **self.plan.env.versions}
        yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items())

    def files(self) -> Iterator[tuple[str, str]]:
        """What lies beside the report."""
        steps = sorted(steps_in(self.folder / "checkpoints"))
        yield "checkpoints", ", ".join(f"checkpoints/{step}" for step in steps) or "none yet"
        if (self.folder / "checkpoints" / "best").is_dir():
            yield "best", f"checkpoints/best, by {self.plan.spec.checkpoint.keep_best}"
        there = (self.folder / "export" / "dinomx.json").exists()
        yield "export", "export/, which AutoModel.from_pretrained opens" if there else "none yet"
        yield "rows", "metrics.jsonl, evaluations.jsonl, health.jsonl; config.toml and plan.json"

    def command(self) -> str:
        """What starts the same run."""
        return self.telling.text(self.plan.source.command)

    def config(self) -> str:
        """The config as it was given; where names are not told, every resolved option in its place."""
        if not self.telling.hides:
            return self.plan.source.text
        options = "\n".join(f"{key} = {value!r}" for key, value in self.telling.options(self.plan).items())
        return f"# the text is {LEFT_OUT}; every option as it was resolved:\n{options}"


def counted(verdicts: int) -> str:
    """A number of verdicts in words."""
    return "no verdict" if not verdicts else "1 verdict" if verdicts == 1 else f"{verdicts} verdicts"
