"""Event files for TensorBoard."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dinomx_core.builtin.trackers.options import TensorBoard
from dinomx_core.declare.tracking import TrackedRun, Tracker, figures_of, verdict_of


class TensorBoardTracker(Tracker):
    """Scalars by the names of the rows; the options as a text. Steps that a run does again take the place of the earlier ones."""

    def __init__(self, options: TensorBoard, run: TrackedRun):
        from torch.utils.tensorboard import SummaryWriter

        folder = Path(options.folder).expanduser() / run.name if options.folder else run.folder / "tensorboard"
        self.writer = SummaryWriter(str(folder), purge_step=run.step or None)
        if not run.step:
            self.writer.add_text("config", f"```json\n{json.dumps(dict(run.config), indent=1)}\n```", 0)

    def row(self, kind: str, row: Mapping[str, Any]) -> None:
        """Scalars, or a verdict as a text."""
        if kind == "health":
            self.writer.add_text("health", verdict_of(row), row["step"])
        for name, value in figures_of(kind, row).items():
            self.writer.add_scalar(name, value, row["step"])
        if kind != "metrics":
            self.writer.flush()

    def close(self, fault: str) -> None:
        """Write what waits."""
        self.writer.close()
