"""What the commands do, from Python. Importing it imports no torch."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import attrs

from dinomx_core.artifacts import RunFolder
from dinomx_core.declare.components import Preprocessing
from dinomx_core.declare.discover import discover
from dinomx_core.errors import DataError
from dinomx_core.planning import document
from dinomx_core.planning.convert import make_converter
from dinomx_core.planning.plan import Env, Plan
from dinomx_core.planning.planner import make_plan
from dinomx_core.planning.reader import to_spec
from dinomx_core.progress import Progress, Silent

if TYPE_CHECKING:
    from dinomx_core.training.model import Model


@attrs.frozen
class Result:
    """What a finished run leaves: its folder, its export and the last evaluation's figures."""

    folder: Path
    export: Path
    figures: dict[str, float]


def plan(
    config: str | Path | dict[str, Any],
    *,
    overrides: Iterable[str] = (),
    out: str | Path | None = None,
    plugins: Iterable[ModuleType] = (),
    env: Env | None = None,
) -> Plan:
    """Work a config out without running it.

    config: path of a TOML file, or its tables as a dict. overrides: "a.b=VALUE" texts. out: instead of `run.out`.
    plugins: modules of declarations to use beside the installed plugins. Raises ConfigError with every problem found.
    """
    registry = discover(plugins)
    if isinstance(config, dict):
        text, stem = "", "run"
        parsed = document.Document(copy.deepcopy(config), {(): "config"})
    else:
        text, stem = document.read_text(Path(config)), Path(config).stem
        parsed = document.parse(text, str(config))
    settings = [*overrides, *([f"run.out={json.dumps(str(out))}"] if out is not None else [])]
    loaded = document.load(parsed, registry, settings)
    run_table = loaded.data.setdefault("run", {})
    if isinstance(run_table, dict):
        run_table.setdefault("name", stem)
    spec = to_spec(loaded, registry)
    return make_plan(spec, loaded, env or Env.here(), text or to_toml(config))  # type: ignore[arg-type]


def run(
    config: str | Path | dict[str, Any] | Plan,
    *,
    overrides: Iterable[str] = (),
    out: str | Path | None = None,
    plugins: Iterable[ModuleType] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Train. Takes what `plan` takes, or a plan; `progress` watches (default: nobody).

    Raises ConfigError before anything is built, TrainingError when the run cannot go on.
    """
    the_plan = config if isinstance(config, Plan) else plan(config, overrides=overrides, out=out, plugins=plugins)
    from dinomx_core.training.build import build
    from dinomx_core.training.checkpoint import save_export
    from dinomx_core.training.loop import train

    watcher = progress or Silent()
    RunFolder.check(the_plan, overwrite)
    parts = build(the_plan)
    folder = RunFolder.create(the_plan, overwrite)  # only now: what cannot be built leaves no trace and deletes no run
    watcher.start(the_plan)
    try:
        figures = train(parts, folder, watcher)
        save_export(parts, folder)
    finally:
        watcher.close()
        folder.close()
        parts.parallelism.close()
    return Result(folder.path, folder.export, figures)


def load(path: str | Path, *, plugins: Iterable[ModuleType] = ()) -> Model:
    """The model of a run folder or an export, with its preprocessing. Raises DataError when there is none."""
    folder = Path(path)
    folder = folder / "export" if (folder / "export").is_dir() else folder
    file = folder / "dinomx.json"
    if not file.is_file():
        raise DataError(f"{path}: neither a finished run nor an export (there is no {file})")
    saved = json.loads(file.read_text("utf-8"))
    registry = discover(plugins)
    component = registry.find("backbone", saved["backbone"]["name"])
    options = make_converter(registry).structure(saved["backbone"]["options"], component.options)
    how = saved["preprocessing"]
    preprocessing = Preprocessing(how["resize"], how["crop"], tuple(how["mean"]), tuple(how["std"]))
    from dinomx_core.training.model import Model

    return Model.open(folder, component, options, saved["channels"], saved["image_size"], preprocessing)


def to_toml(config: dict[str, Any]) -> str:
    """Tables given as a dict, as the TOML text that `config.toml` of the run keeps."""
    return "\n".join(_toml_lines(config, ())) + "\n"


def _toml_lines(table: dict[str, Any], path: tuple[str, ...]) -> Iterable[str]:
    if path:
        yield f"[{'.'.join(json.dumps(key) for key in path)}]"
    for key, value in table.items():
        if not isinstance(value, dict):
            yield f"{json.dumps(key)} = {json.dumps(value)}"
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _toml_lines(value, (*path, key))
