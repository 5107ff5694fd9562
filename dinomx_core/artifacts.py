"""The run folder: `config.toml`, `plan.json`, rows of metrics, evaluations and health, `checkpoints/`, `export/`."""

import contextlib
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dinomx_core.errors import ConfigError, Problem
from dinomx_core.planning.plan import Plan

ROWS = ("metrics", "evaluations", "health")
AFTER = "evaluations-after"  # rows of `dinomx eval`, which a run that goes on leaves as they are
OURS = {
    "config.toml",
    "plan.json",
    "unreadable.txt",
    "report.html",
    "pictures",
    "trackers.json",
    "tensorboard",
    "wandb",
    "checkpoints",
    "attention",
    "export",
    *(f"{name}.jsonl" for name in (*ROWS, AFTER)),
}


def write_atomically(path: Path, text: str) -> None:
    """Write a text so that a reader sees the old file or the new one, never half of it, and a crash keeps one of them."""
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def as_line(row: dict[str, Any]) -> str:
    """A row as a line of JSON."""
    return json.dumps(finite(row)) + "\n"


def finite(row: dict[str, Any]) -> dict[str, Any]:
    """A row as JSON takes it, which has no infinity: the norm of a gradient that overflowed in fp16 is written as null."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Rows of a jsonl file; a last line that a crash cut short is left out."""
    rows = []
    if file.exists():
        for line in file.read_text("utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
    return rows


class RunFolder:
    """One run's files. Rows are written line by line, so that an interrupted run keeps all of them. Of several processes only the first
    `writes`."""

    def __init__(self, path: Path, writes: bool = True):
        self.path, self.writes = path, writes
        self.listeners: list[Callable[[str, dict[str, Any]], None]] = []  # told each row that this process writes
        self._files: dict[str, Any] = {}

    @classmethod
    def create(cls, plan: Plan) -> "RunFolder":
        """Make the folder anew and write the config verbatim and the plan. What a run wrote there is deleted, nothing else."""
        path = plan.run_dir
        path.mkdir(parents=True, exist_ok=True)
        folder = cls(path)
        folder.clear()
        folder.write_plan(plan)
        return folder

    @classmethod
    def reopen(cls, plan: Plan, step: int) -> "RunFolder":
        """Go on with a run from `step`: rows of later steps, which are made again, are taken out."""
        folder = cls(plan.run_dir)
        for name in ROWS:
            file = folder.path / f"{name}.jsonl"
            if file.exists():
                kept = [row for row in read_rows(file) if row["step"] < step]
                write_atomically(file, "".join(json.dumps(row) + "\n" for row in kept))
        shutil.rmtree(folder.export, ignore_errors=True)  # of the run as it ended before; there will be another
        folder.write_plan(plan)
        return folder

    def clear(self) -> None:
        """Delete what a run has written, the plan last: until then the folder is known for a run's."""
        for name in [*sorted(OURS - {"plan.json"}), "plan.json"]:
            path = self.path / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def write_plan(self, plan: Plan) -> None:
        """The config as it was given, and the plan."""
        write_atomically(self.path / "config.toml", plan.source.text)
        write_atomically(self.path / "plan.json", json.dumps(plan.to_json(), indent=1) + "\n")

    @staticmethod
    def check(plan: Plan, overwrite: bool) -> None:
        """Raise ConfigError for a used folder unless told to overwrite it, and always for one that holds something else."""
        path = plan.run_dir
        names = {entry.name for entry in path.iterdir()} if path.exists() else set()
        if names - {f".{name}.draft" for name in OURS}:
            if not names & OURS:
                raise ConfigError([Problem(f"{path} holds other files; choose another run.name or --out", "run.name")])
            if not overwrite:
                remedy = "go on with it by --resume, start anew with --overwrite, or choose another run.name or --out"
                raise ConfigError([Problem(f"{path} holds a run already; {remedy}", "run.name")])

    @property
    def export(self) -> Path:
        """The folder that `AutoModel.from_pretrained` opens."""
        return self.path / "export"

    @property
    def checkpoints(self) -> Path:
        """The folder of all checkpoints."""
        return self.path / "checkpoints"

    def rows(self, name: str) -> list[dict[str, Any]]:
        """What was written so far: "metrics", "evaluations" or "health"."""
        return read_rows(self.path / f"{name}.jsonl")

    def write(self, name: str, row: dict[str, Any]) -> None:
        """Append a row: "metrics" (one a training step), "evaluations" or "health"."""
        if not self.writes:
            return
        if name not in self._files:
            self._files[name] = (self.path / f"{name}.jsonl").open("a", encoding="utf-8", buffering=1)
        self._files[name].write(as_line(row))
        for told in self.listeners:
            told(name, row)

    def close(self) -> None:
        """Close the row files."""
        for file in self._files.values():
            file.close()
        self._files.clear()
