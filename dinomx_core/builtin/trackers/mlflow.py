"""A run in MLflow."""

import os
import re
import time
from collections.abc import Mapping
from typing import Any

from dinomx_core.builtin.trackers.options import Mlflow
from dinomx_core.declare.tracking import TrackedRun, Tracker, figures_of, verdict_of

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # training waits for a server that does not answer
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
PARAMS, METRICS, TEXT = 100, 1000, 500  # of a call at most; characters of a value
WAIT = 10.0  # seconds that rows are gathered
ALLOWED = re.compile(r"[^A-Za-z0-9_\-. /]")


class MlflowTracker(Tracker):
    """Metrics by the names of the rows; options as parameters. Rows are sent together every few seconds."""

    def __init__(self, options: Mlflow, run: TrackedRun):
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self.metric, self.waiting, self.sent = Metric, list[Any](), time.monotonic()
        self.client = MlflowClient(tracking_uri=options.uri or f"sqlite:///{(run.out / 'mlflow.db').absolute()}")
        self.key = run.key
        if self.key:
            self.client.set_terminated(self.key, "RUNNING")
            return
        found = self.client.get_experiment_by_name(options.experiment)
        experiment = found.experiment_id if found else self.client.create_experiment(options.experiment)
        self.key = self.client.create_run(experiment, run_name=run.name).info.run_id
        params = [Param(name, str(value)[:TEXT]) for name, value in run.config.items()]
        for first in range(0, len(params), PARAMS):
            self.client.log_batch(self.key, params=params[first : first + PARAMS])

    def row(self, kind: str, row: Mapping[str, Any]) -> None:
        """Metrics, or a verdict as a tag."""
        if kind == "health":
            self.client.set_tag(self.key, named(f"health.{row['name']}"), verdict_of(row))
        now = int(time.time() * 1000)
        self.waiting += [
            self.metric(named(name), value, now, row["step"]) for name, value in figures_of(kind, row).items()
        ]
        if kind != "metrics" or time.monotonic() - self.sent > WAIT or len(self.waiting) > METRICS // 2:
            self.send()

    def send(self) -> None:
        """Send what waits."""
        waiting, self.waiting, self.sent = self.waiting, [], time.monotonic()
        for first in range(0, len(waiting), METRICS):
            self.client.log_batch(self.key, metrics=waiting[first : first + METRICS])

    def close(self, fault: str) -> None:
        """Send what waits, and say how it ended."""
        self.send()
        self.client.set_terminated(self.key, "FAILED" if fault else "FINISHED")


def named(name: str) -> str:
    """A name as MLflow takes it: "knn/accuracy@20" is "knn/accuracy_at_20"."""
    return ALLOWED.sub("_", name.replace("@", "_at_"))
