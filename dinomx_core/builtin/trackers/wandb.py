"""A run in Weights & Biases."""

import os
from collections.abc import Mapping
from typing import Any

from dinomx_core.builtin.trackers.options import Wandb
from dinomx_core.declare.tracking import TrackedRun, Tracker, figures_of, verdict_of

STEP = "step"  # an axis of our own: wandb's own would refuse steps that a run does again
LOGIN = 60  # seconds that a person is waited for who has not logged in
QUIET = {"WANDB_ERROR_REPORTING": "false", "WANDB_DISABLE_GIT": "true", "WANDB_DISABLE_CODE": "true"}


class WandbTracker(Tracker):
    """A row a step. What goes on has the same id, so it is the same run there."""

    def __init__(self, options: Wandb, run: TrackedRun):
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        import wandb

        self.run = wandb.init(
            project=options.project, entity=options.entity or None, group=options.group or None, tags=options.tags or None,
            mode=options.mode, dir=str(run.folder), name=run.name, id=run.key or None, resume="allow" if run.key else None,
            config=dict(run.config), settings=wandb.Settings(console="off", silent=True, login_timeout=LOGIN),
        )  # fmt: skip
        self.run.define_metric(STEP)
        self.run.define_metric("*", step_metric=STEP)
        self.key = self.run.id

    def row(self, kind: str, row: Mapping[str, Any]) -> None:
        """Figures, or a verdict as an alert in the summary."""
        if kind == "health":
            self.run.summary[f"health/{row['name']}"] = verdict_of(row)
        elif figures := figures_of(kind, row):
            self.run.log({STEP: row["step"], **figures})

    def close(self, fault: str) -> None:
        """Finish, as failed where there is a fault."""
        self.run.finish(exit_code=1 if fault else 0)
