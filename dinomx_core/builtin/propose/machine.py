"""What this machine has, found without torch."""

import os
import shutil
import subprocess
from pathlib import Path

import attrs

from dinomx_core.planning.plan import Env

ASSUMED = 8e9  # bytes of a GPU that does not tell
BF16 = 8.0  # compute capability from which GPUs have bf16 units
LIMIT = Path("/sys/fs/cgroup/memory.max")


@attrs.frozen
class Machine:
    """Where training would happen: device, bytes of memory, whether it is fast in bf16, CPU cores."""

    device: str
    memory: float
    bf16: bool
    cores: int

    @property
    def gpu(self) -> bool:
        """Whether it trains on a GPU."""
        return self.device == "cuda"


def machine_of(env: Env) -> Machine:
    """The machine of an environment."""
    if env.device != "cuda":
        return Machine(env.device, main_memory(), False, env.cores)
    memory, capability = gpu()
    return Machine("cuda", memory, capability >= BF16, env.cores)


def main_memory() -> float:
    """Bytes of main memory, or of what this process may use of it."""
    try:
        whole = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError, AttributeError):  # not on this system
        whole = ASSUMED
    try:
        return min(whole, float(LIMIT.read_text()))
    except (OSError, ValueError):  # no limit
        return whole


def gpu() -> tuple[float, float]:
    """Bytes and compute capability of the smallest GPU, as its driver tells them."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ASSUMED, 0.0
    query = [program, "--query-gpu=memory.total,compute_cap", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
        rows = [tuple(float(value) for value in line.split(",")) for line in told.splitlines() if line.strip()]
        return min(row[0] for row in rows) * 2**20, min(row[1] for row in rows)
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return ASSUMED, 0.0
