"""The run folder: `config.toml`, `plan.json`, `metrics.jsonl`, `evaluations.jsonl`, `checkpoints/<step>/`, `export/`."""

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

from dinomx_core.errors import ConfigError, Problem
from dinomx_core.planning.plan import Plan


def write_atomically(path: Path, text: str) -> None:
    """Write a text so that a reader sees the old file or the new one, never half of it."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text, "utf-8")
    os.replace(draft, path)


class RunFolder:
    """One run's files. Rows are written line by line, so that an interrupted run keeps all of them."""

    def __init__(self, path: Path):
        self.path = path
        self._rows: dict[str, Any] = {}

    @classmethod
    def create(cls, plan: Plan, overwrite: bool) -> "RunFolder":
        """Make the folder and write the config verbatim and the plan; an old run there was checked to be deletable."""
        path = plan.run_dir
        cls.check(plan, overwrite)
        if path.exists():
            shutil.rmtree(path)
        path.mkdir(parents=True)
        write_atomically(path / "config.toml", plan.config_text)
        write_atomically(path / "plan.json", json.dumps(plan.to_json(), indent=1) + "\n")
        return cls(path)

    @staticmethod
    def check(plan: Plan, overwrite: bool) -> None:
        """Raise ConfigError for a used folder unless told to overwrite it, and always for one that holds something else."""
        path = plan.run_dir
        if path.exists() and any(path.iterdir()):
            if not (path / "plan.json").exists():
                raise ConfigError([Problem(f"{path} holds other files; choose another run.name or --out", "run.name")])
            if not overwrite:
                remedy = "choose another run.name or --out, or start anew with --overwrite"
                raise ConfigError([Problem(f"{path} holds a run already; {remedy}", "run.name")])

    @property
    def export(self) -> Path:
        """The folder that `AutoModel.from_pretrained` opens."""
        return self.path / "export"

    def checkpoint(self, step: int) -> Path:
        """The folder of one checkpoint."""
        return self.path / "checkpoints" / str(step)

    def _write_row(self, file: str, row: dict[str, Any]) -> None:
        if file not in self._rows:
            self._rows[file] = (self.path / file).open("a", encoding="utf-8", buffering=1)
        # JSON has no infinity: the norm of a gradient that overflowed in fp16 is written as null.
        plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        self._rows[file].write(json.dumps(plain) + "\n")

    def metrics(self, row: dict[str, Any]) -> None:
        """Append one training step."""
        self._write_row("metrics.jsonl", row)

    def evaluation(self, row: dict[str, Any]) -> None:
        """Append one evaluation."""
        self._write_row("evaluations.jsonl", row)

    def close(self) -> None:
        """Close the row files."""
        for file in self._rows.values():
            file.close()
        self._rows.clear()
