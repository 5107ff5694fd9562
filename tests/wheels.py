"""Wheels of the core and of every plugin, and virtual environments that hold nothing of this project but what is installed there."""

import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = (
    "dinomx",
    "_dinomx",
    "__editable__",
    "_virtualenv",
    "pip",
    "distutils-precedence",
)  # beginnings of names that an environment does not share


@dataclass
class Environment:
    """A virtual environment. It shares installed libraries with the one that runs the tests, but no package of this project."""

    root: Path
    wheels: Path

    @property
    def bin(self) -> Path:
        return self.root / "bin"

    def install(self, *what: str | Path) -> str:
        """pip install of wheels by the name of their package, or of folders ("-e", path); what pip said."""
        return self._pip("--no-deps", "--no-build-isolation", *what)

    def would_install(self, *what: str) -> list[str]:
        """What pip would bring along, with everything that these packages need."""
        said = self._pip("--dry-run", *what)
        return next(line for line in said.splitlines() if line.startswith("Would install")).split()[2:]

    def _pip(self, *words: str | Path) -> str:
        """What `pip install` says, with nothing but the wheels to install from; it has to succeed."""
        base = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "--disable-pip-version-check"]
        offline = ["install", "--no-index", "--find-links", str(self.wheels), *map(str, words)]
        return done(subprocess.run([*base, *offline], capture_output=True, text=True, env=self.variables()))

    def run(self, *command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command of this environment."""
        words = list(map(str, command))
        words[0] = str(self.bin / words[0])
        return subprocess.run(words, capture_output=True, text=True, cwd=cwd or self.root, env=self.variables())

    def variables(self) -> dict[str, str]:
        """The process's, without what leads back to the checkout."""
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTEST_CURRENT_TEST")}
        return {
            **kept,
            "VIRTUAL_ENV": str(self.root),
            "PATH": f"{self.bin}{os.pathsep}{kept['PATH']}",
            "HF_HUB_OFFLINE": "1",
        }


def purelib(environment: Environment) -> Path:
    """Where an environment's packages lie."""
    return Path(done(environment.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")).strip())


def done(result: subprocess.CompletedProcess[str]) -> str:
    """What a command said, which has to succeed."""
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="session")
def wheels(tmp_path_factory) -> Path:
    """A folder with a wheel of the core and of each plugin."""
    out = tmp_path_factory.mktemp("wheels")
    packages = [ROOT, *(file.parent for file in sorted(ROOT.glob("plugins/*/pyproject.toml")))]
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
    ]
    done(subprocess.run([*pip, "--wheel-dir", out, *packages], capture_output=True, text=True))
    return out


@pytest.fixture
def environment(tmp_path, wheels) -> Environment:
    """An environment without this project."""
    made = Environment(tmp_path / "venv", wheels)
    done(subprocess.run([sys.executable, "-m", "venv", "--without-pip", made.root], capture_output=True, text=True))
    there = purelib(made)
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(OURS):
            (there / entry.name).symlink_to(entry)
    return made
