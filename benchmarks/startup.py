"""Seconds of `dinomx --help` and `dinomx plan examples/quickstart.toml` as whole processes: `python benchmarks/startup.py`."""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 9
DINOMX = Path(sys.executable).with_name("dinomx")


def main() -> None:
    """Print the median of each."""
    with tempfile.TemporaryDirectory() as out:
        for arguments in (["--help"], ["plugins"], ["plan", "examples/quickstart.toml", "--out", out]):
            times = []
            for _ in range(RUNS):
                started = time.perf_counter()
                subprocess.run([DINOMX, *arguments], check=True, capture_output=True)
                times.append(time.perf_counter() - started)
            spread = f"{min(times):.3f} to {max(times):.3f}"
            print(f"dinomx {' '.join(arguments[:2]):<32} {statistics.median(times):.3f} s (median of {RUNS}, {spread})")


if __name__ == "__main__":
    main()
