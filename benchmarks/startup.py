"""Seconds of `dinomx --help` and `dinomx plugins` with 0, 10 and 50 plugins beside the core, and of `dinomx plan examples/quickstart.toml`:
`python benchmarks/startup.py`.

The plugins are packages written for this, each with a loss and its options, as `dinomx plugin new` writes them; of those that are installed
here only the core is looked at. All are run in turn, so that a busy machine is as busy for each; CPU seconds are the process's own.
"""

import os
import resource
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

RUNS = 11
COUNTS = (0, 10, 50)
DECLARATION = '''"""Declarations."""

import attrs

from dinomx_core import Loss, Request, hookimpl, option, positive

DINOMX_API = 1


@attrs.frozen
class Spread{n}:
    """Keep the features of a batch apart."""

    margin: float = option(1.0, "standard deviation below which a feature is pushed", check=positive)
    view: str = option("global", "crops whose class tokens are looked at")


def requests(options: Spread{n}) -> list[Request]:
    """The student's class tokens."""
    return [Request("student", options.view)]


@hookimpl
def dinomx_losses():
    yield Loss("spread-{n}", Spread{n}, "dinomx_spread_{n}.loss:Spread", requests=requests)
'''


def write(folder: Path, count: int) -> None:
    """The core alone, and some plugins, as pip would leave them."""
    core = Path(sysconfig.get_path("purelib"))
    for entry in core.glob("dinomx-*.dist-info"):
        (folder / entry.name).symlink_to(entry)
    for n in range(count):
        package, info = folder / f"dinomx_spread_{n}", folder / f"dinomx_spread_{n}-1.0.dist-info"
        package.mkdir()
        info.mkdir()
        (package / "__init__.py").write_text("")
        (package / "plugin.py").write_text(DECLARATION.format(n=n))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: dinomx-spread-{n}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[dinomx.plugins]\nspread-{n} = dinomx_spread_{n}.plugin\n")


def environment(folder: Path) -> Path:
    """A folder that stands for the environment's packages: all of them but plugins."""
    there = Path(sysconfig.get_path("purelib"))
    for entry in there.iterdir():
        if not entry.name.startswith(("dinomx", "_dinomx", "__editable__")):
            (folder / entry.name).symlink_to(entry)
    return folder


def variables(caches: Path) -> dict[str, str]:
    """The process's, with Python's caches kept in a folder, even where it is told to write none."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(caches)}


def measured(folder: Path, arguments: list[str]) -> tuple[float, float]:
    """Seconds on the clock, and of the CPU, of a command in a process of its own that sees that folder alone."""
    code = f"import sys; sys.path.append({str(folder)!r}); sys.argv[0] = 'dinomx'; from dinomx_core.cli import main; main()"
    environ = {**variables(folder.parent / "caches"), "PYTHONPATH": str(Path(__file__).parents[1])}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    base = [sys._base_executable, "-S", "-c", code]  # type: ignore[attr-defined]
    subprocess.run([*base, *arguments], check=True, capture_output=True, env=environ)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print medians."""
    with tempfile.TemporaryDirectory() as name:
        folders = {}
        for count in COUNTS:
            folders[count] = Path(name) / str(count)
            folders[count].mkdir()
            environment(folders[count])
            write(folders[count], count)
        jobs = [(count, [command]) for command in ("--help", "plugins") for count in COUNTS]
        for count, arguments in jobs:
            measured(folders[count], arguments)  # writes what Python compiles
        times: dict[tuple[int, str], list[tuple[float, float]]] = {}
        for _ in range(RUNS):
            for count, arguments in jobs:
                times.setdefault((count, arguments[0]), []).append(measured(folders[count], arguments))
        for (count, command), found in times.items():
            wall, cpu = (statistics.median(values) for values in zip(*found))
            first = statistics.median(cpu for _, cpu in times[COUNTS[0], command])
            each = f", {(cpu - first) / count * 1000:.1f} ms of CPU a plugin" if count else ""
            print(f"dinomx {command:<8} {count:>2} plugins  {wall:.3f} s, CPU {cpu:.3f} s{each} (medians of {RUNS})")
    dinomx = Path(sys.executable).with_name("dinomx")
    command = [dinomx, "plan", "examples/quickstart.toml", "--out"]
    with tempfile.TemporaryDirectory() as out:
        walls = []
        for _ in range(RUNS + 1):
            started = time.perf_counter()
            subprocess.run([*command, out], check=True, capture_output=True, env=variables(Path(out) / "caches"))
            walls.append(time.perf_counter() - started)
    print(f"dinomx plan examples/quickstart.toml, all plugins  {statistics.median(walls[1:]):.3f} s")


if __name__ == "__main__":
    main()
