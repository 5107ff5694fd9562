"""Tells a run's trackers what happens. What fails in one is told once, and it is left alone from then on."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dinomx_core.artifacts import RunFolder, write_atomically
from dinomx_core.declare.tracking import TrackedRun, Tracker
from dinomx_core.planning.plan import Plan
from dinomx_core.training.construct import construct
from dinomx_core.training.report.told import Telling, first_line

KEYS = "trackers.json"


class Trackers:
    """The trackers of a run that starts, or goes on, at a step."""

    def __init__(self, plan: Plan, folder: RunFolder, step: int, telling: Telling, note: Callable[[str], None]):
        self.plan, self.note, self.open = plan, note, dict[str, Tracker]()
        if not plan.spec.tracker:
            return
        file = folder.path / KEYS
        keys = json.loads(file.read_text("utf-8")) if step and file.exists() else {}
        run = plan.spec.run
        name = f"{run.name}-{plan.stage}" if plan.stage else run.name
        config = telling.options(plan)
        for label, chosen in plan.spec.tracker.items():
            about = TrackedRun(
                name, folder.path, Path(run.out).expanduser(), config, plan.steps, step, keys.get(label, "")
            )
            with self.guarded(label):
                self.open[label] = construct(chosen, about)
                keys[label] = self.open[label].key
        write_atomically(file, json.dumps(keys, indent=1) + "\n")
        folder.listeners.append(self.hear)

    def hear(self, kind: str, row: dict[str, Any]) -> None:
        """Pass a row on to those that are told of its step."""
        for label, tracker in list(self.open.items()):
            every = max(1, self.plan.lengths[f"tracker.{label}.every"])
            if kind != "metrics" or row["step"] % every == 0 or row["step"] + 1 == self.plan.steps:
                with self.guarded(label):
                    tracker.row(kind, row)

    def close(self, fault: str) -> None:
        """The run has ended."""
        for label, tracker in list(self.open.items()):
            with self.guarded(label):
                tracker.close(fault)
        self.open.clear()

    @contextlib.contextmanager
    def guarded(self, label: str) -> Any:
        """Whatever a tracker raises ends the tracker, not the run."""
        try:
            yield
        except Exception as error:
            self.open.pop(label, None)
            self.note(f"tracker.{label}: {type(error).__name__}: {first_line(error)}; the run goes on without it")
