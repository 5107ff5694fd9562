"""Options of the trackers. No torch, and none of their packages."""

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any, Literal

import attrs

from dinomx_core.declare.components import Check
from dinomx_core.declare.facts import Draft
from dinomx_core.declare.values import not_empty, option


@attrs.frozen
class TensorBoard:
    """Event files for TensorBoard: `tensorboard --logdir runs` shows all runs."""

    folder: str = option("", 'folder of the event files; "": tensorboard/ in the run folder')


@attrs.frozen
class Wandb:
    """A run in Weights & Biases: rows and resolved options only; no code, no console, no state of git, no reports of errors."""

    project: str = option("dinomx", "project that it belongs to", check=not_empty("name a project"))
    entity: str = option("", 'user or team; "": your own')
    group: str = option("", "group of runs that it belongs to")
    tags: list[str] = option([], "tags of the run")
    mode: Literal["online", "offline"] = option(
        "online", "offline: kept in wandb/ in the run folder, for `wandb sync`; nothing is sent"
    )


@attrs.frozen
class Mlflow:
    """A run in MLflow, on a server or in a file. MLflow's own telemetry is switched off."""

    experiment: str = option("dinomx", "experiment that it belongs to", check=not_empty("name an experiment"))
    uri: str = option(
        "",
        'tracking store, such as "http://host:5000" or "sqlite:///file.db"; "": mlflow.db in `run.out`, for all runs there',
    )


def needs(package: str) -> Check:
    """A check that a package is installed; it is looked for, and not imported."""

    def check(options: Any, draft: Draft) -> Iterable[tuple[str, str]]:
        if find_spec(package) is None:
            yield "", f"the package {package} is not installed; install it with: pip install 'dinomx[{package}]'"

    return check
