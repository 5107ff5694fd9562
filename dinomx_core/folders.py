"""Folders that are written whole or not at all, and checkpoints among them: manifests with checksums, which is the newest whole one."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dinomx_core.errors import DataError

MANIFEST = "manifest.json"
DESCRIPTION = "dinomx.json"
SWEEP = "sweep.json"
BEST = "best"
BASE = "base"  # parameters that never train, once for all checkpoints of a run
BASE_STATE = "weights"  # the name of their tensors in that folder


def write_folder(place: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a draft folder, sync it, then move it to its place: a reader, or a crash, finds all of it or nothing.
    Raises DataError when the place cannot be written to."""
    recover(place)
    draft, old = leftovers(place)
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        write(draft)
        for path in (*(p for p in draft.rglob("*") if p.is_file()), draft):
            sync(path)
        if place.exists():
            os.replace(place, old)
        os.replace(draft, place)
        sync(place.parent)
    except OSError as error:
        raise DataError(f"{place}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def leftovers(place: Path) -> tuple[Path, Path]:
    """Where a folder is drafted, and where the one it replaces waits for a moment."""
    return place.with_name(f".{place.name}.draft"), place.with_name(f".{place.name}.old")


def recover(place: Path) -> None:
    """Undo what a crash between the two moves of `write_folder` left."""
    _, old = leftovers(place)
    if old.exists() and not place.exists():
        os.replace(old, place)
    shutil.rmtree(old, ignore_errors=True)


def sync(path: Path) -> None:
    """Make a file's bytes, or a folder's names, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_manifest(folder: Path, facts: dict[str, Any], files: dict[str, Any] | None = None) -> None:
    """`facts`, and size and SHA-256 of every file in the folder, and those of `files` beside it ("../name")."""
    files = dict(files or {})
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        with path.open("rb") as file:
            files[path.name] = {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    (folder / MANIFEST).write_text(json.dumps({**facts, "files": files}, indent=1) + "\n", "utf-8")


def fault_of(folder: Path) -> str:
    """What is wrong with a checkpoint's files, or "". Raises DataError where the disk does not let them be read: they may be whole."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        for name, wanted in manifest["files"].items():
            path = folder / name
            if not path.exists():
                return f"{name} is missing"
            if path.stat().st_size != wanted["bytes"]:
                return f"{name} has {path.stat().st_size} bytes, not {wanted['bytes']}"
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != wanted["sha256"]:
                    return f"{name} is not what was written (its SHA-256 differs)"
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be read ({error})"
    return ""


def steps_in(checkpoints: Path) -> list[int]:
    """Steps that there are checkpoints of, whole or not, newest first."""
    names = (path.name for path in checkpoints.iterdir()) if checkpoints.is_dir() else ()
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


def newest_whole(checkpoints: Path) -> tuple[int | None, list[str]]:
    """The newest step whose checkpoint is whole, and what to say of the newer ones that are not."""
    notes: list[str] = []
    for step in steps_in(checkpoints):
        fault = fault_of(checkpoints / str(step))
        if not fault:
            return step, notes
        notes.append(f"checkpoint {checkpoints / str(step)} is left out: {fault}")
    return None, notes


def is_ours(path: Path) -> bool:
    """Whether a path is a run, a checkpoint or an export of this project."""
    return (
        (path / DESCRIPTION).is_file() or (path / "checkpoints").is_dir() or (path / "export" / DESCRIPTION).is_file()
    )


def find_model(path: Path, network: str) -> Path:
    """The export or checkpoint that a path means: itself, a run's export, or a run's newest whole checkpoint; an export holds the
    teacher only. Raises DataError when it means none."""
    candidates = [path, *([path / "export"] if network == "teacher" else [])]
    if (path / "checkpoints").is_dir():
        step, _ = newest_whole(path / "checkpoints")
        candidates += [path / "checkpoints" / str(step)] if step is not None else []
    for candidate in candidates:
        if (candidate / DESCRIPTION).is_file():
            return candidate
    raise DataError(
        f"{path}: neither a run, nor a checkpoint, nor an export (no {DESCRIPTION} in it, nor in its export/){stages_in(path)}"
    )


def stages_in(path: Path) -> str:
    """The stages of a run that was given in place of one of them, as the end of a message."""
    found = sorted(p.name for p in path.iterdir() if (p / "plan.json").is_file()) if path.is_dir() else []
    return f"; it holds the stages {', '.join(found)}: name one of their folders" if found else ""


def read_sweep(folder: Path) -> dict[str, Any] | None:
    """What `sweep.json` of a folder says; None where there is none. Raises DataError where it cannot be read."""
    file = folder / SWEEP
    try:
        about = json.loads(file.read_text("utf-8"))
        if all(isinstance(run["name"], str) for run in about["runs"]) and {"grid", "seeds"} <= set(about):
            return about
        raise ValueError("it misses something")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file}: cannot be read as a sweep ({error}); bring it back, or choose another folder"
        ) from None
