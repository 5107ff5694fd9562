"""The folder that is written: one of an earlier call gives way, anything else stays."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from dinomx_core import ConfigError, DataError, api
from dinomx_core.declare.discover import discover
from dinomx_core.errors import Problem

REPORT, PAGE = "explain.json", "index.html"


def name_of(source: Path) -> str:
    """What a source is called: a run's own name for its export, with the step for a checkpoint."""
    path = source.expanduser().absolute()
    if path.name == "export":
        return path.parent.name
    if path.parent.name == "checkpoints":
        return f"{path.parent.parent.name}-{path.name}"
    return path.stem if path.is_file() else path.name or "model"


def check_model(source: Path, plugins: Sequence[ModuleType]) -> None:
    """Raise ConfigError for an image in the place of a model."""
    suffixes = tuple(s for reader in discover(plugins).all("reader") for s in reader.suffixes)
    if source.expanduser().is_file() and source.name.lower().endswith(suffixes):
        raise ConfigError([Problem(f"{source} is an image and no model; name the model first, then the images")])


def hides_names(source: Path, plugins: Sequence[ModuleType]) -> bool:
    """Whether the run that a model is of, or a config, says by `report.hash_ids` that no names of its data are told."""
    place = source.expanduser().absolute()
    if place.suffix == ".toml" and place.is_file():
        return api.plan_alone(place, plugins).spec.report.hash_ids
    files = [above / "plan.json" for above in (place, *place.parents[:2])]
    plan: dict[str, Any] = next((json.loads(file.read_text("utf-8")) for file in files if file.is_file()), {})
    return bool(plan.get("values", {}).get("report.hash_ids", {}).get("value", False))


def check_folder(out: Path, overwrite: bool) -> None:
    """Raise ConfigError for a place that holds something else than what an earlier call wrote."""
    if out.exists() and not out.is_dir():
        raise ConfigError([Problem(f"{out} is a file; name a folder", "--out")])
    if out.is_dir() and any(out.iterdir()) and not overwrite and not (out / REPORT).is_file():
        message = f"{out} holds something else; choose another folder, or write into it with --overwrite"
        raise ConfigError([Problem(message, "--out")])


def write(out: Path, report: dict[str, Any], files: dict[str, Callable[[Path], Any]]) -> None:
    """Write files by their names below `out`, and the report, which lists them; those of an earlier call go first. Raises DataError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        remove(out)
        report["files"] = sorted([*files, REPORT])
        for name, save in files.items():
            (out / name).parent.mkdir(exist_ok=True)
            save(out / name)
        (out / REPORT).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror or error}") from None


def remove(out: Path) -> None:
    """Delete what an earlier call's report says it wrote, and nothing that lies elsewhere."""
    try:
        listed = json.loads((out / REPORT).read_text("utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    for name in listed:
        path = (out / str(name)).resolve()
        if path.is_relative_to(out.resolve()) and path.is_file():
            path.unlink()
            if path.parent != out.resolve() and not any(path.parent.iterdir()):
                path.parent.rmdir()
