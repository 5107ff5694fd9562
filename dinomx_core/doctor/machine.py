"""GPUs, cores, memory, disks, and the way to a model hub."""

import os
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dinomx_core.builtin.propose.machine import main_memory
from dinomx_core.doctor.findings import Finding

GIB = 2**30
SHARED = Path("/dev/shm")
QUOTA = Path("/sys/fs/cgroup/cpu.max")
SMALL_SHARED, SMALL_DISK, FEW_FILES = GIB, 5 * GIB, 1024
SIDE, ROUNDS = 1024, 5  # of the matrices that are multiplied
BF16_CAPABILITY = (8, 0)


def gpus() -> Iterator[Finding]:
    """GPUs as their driver tells of them, and whether torch can use them."""
    import torch

    rows, fault = driven()
    usable = torch.cuda.is_available()
    if fault and not usable:
        yield Finding(
            "gpu", "bad", fault, "repair or reinstall the NVIDIA driver; without it this machine trains on its CPU"
        )
    elif rows and not usable:
        built = torch.version.cuda
        why = f"is built for CUDA {built}, and the driver is too old or hidden" if built else "is built without CUDA"
        remedy = "update the driver, or look at CUDA_VISIBLE_DEVICES" if built else "install a torch with CUDA"
        yield Finding("gpu", "bad", f"{'; '.join(dict.fromkeys(rows))}; torch {torch.__version__} {why}", remedy)
    driver = (
        f", driver {rows[0].rpartition(', ')[2]}" if rows else ""
    )  # one for all; rows may be in another order than torch's
    for number in range(torch.cuda.device_count() if usable else 0):
        about = torch.cuda.get_device_properties(number)
        fast = (about.major, about.minor) >= BF16_CAPABILITY
        memory = f"{about.total_memory / GIB:.0f} GiB"
        text = f"{about.name}, {memory}, compute capability {about.major}.{about.minor}{driver}"
        yield (
            Finding("gpu", "ok", f"{text}, bf16")
            if fast
            else Finding("gpu", "note", text, 'no bf16 units: take run.precision = "fp16"')
        )
    if not rows and not fault and not usable:
        yield Finding("gpu", "ok", "none; this machine trains on its CPU")


def driven() -> tuple[list[str], str]:
    """Name, memory and driver of each GPU as nvidia-smi has them, and why it has none; neither where there is no such program."""
    program = shutil.which("nvidia-smi")
    if not program:
        return [], ""
    query = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    if done.returncode:
        return [], f"nvidia-smi failed ({' '.join([*lines, *done.stderr.split()]) or f'exit {done.returncode}'})"
    return lines, ""


def speed() -> Iterator[Finding]:
    """How fast the CPU multiplies float32 and bf16 matrices of 1024 x 1024."""
    import torch

    rates = {kind: products(torch.ones(SIDE, SIDE, dtype=kind)) for kind in (torch.float32, torch.bfloat16)}
    ratio = rates[torch.bfloat16] / rates[torch.float32]
    text = f"CPU: {rates[torch.float32]:.0f} GFLOP/s in float32, {rates[torch.bfloat16]:.0f} in bf16 (x {ratio:.1f})"
    if ratio < 1:
        yield Finding("bf16", "note", text, 'on this CPU take run.precision = "float32"')
    else:
        yield Finding("bf16", "ok", text)


def products(matrix: Any) -> float:
    """GFLOP/s of a matrix times itself."""
    seconds = []
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        matrix @ matrix
        seconds.append(time.perf_counter() - started)
    return 2 * SIDE**3 / statistics.median(seconds[1:]) / 1e9  # the first one also makes ready


def cores() -> Iterator[Finding]:
    """CPU cores that this process may use."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = QUOTA.read_text().split()[:2]
        allowed = int(quota) / int(period) if quota != "max" else float(here)
    except (OSError, ValueError):
        allowed = float(here)
    if allowed < here:
        remedy = f"set run.threads = {max(1, int(allowed))}, since more threads than that only wait"
        yield Finding("cores", "note", f"{here}, of which this process gets the time of {allowed:g}", remedy)
    else:
        yield Finding("cores", "ok", f"{here}")


def memory() -> Iterator[Finding]:
    """Main memory, and what processes share."""
    yield Finding("memory", "ok", f"{main_memory() / GIB:.1f} GiB")
    if SHARED.is_dir() and (size := shutil.disk_usage(SHARED).total) < SMALL_SHARED:
        remedy = "loader.workers fill it; start the container with --shm-size 8g, or set loader.workers = 0"
        yield Finding("memory", "note", f"{SHARED} has {size / 2**20:.0f} MiB", remedy)


def disk() -> Iterator[Finding]:
    """Room for run folders."""
    free = shutil.disk_usage(Path.cwd()).free
    text = f"{free / GIB:.0f} GiB free in {Path.cwd()}"
    if free < SMALL_DISK:
        yield Finding("disk", "note", text, "checkpoints need room: name another folder by run.out")
    else:
        yield Finding("disk", "ok", text)


def files() -> Iterator[Finding]:
    """How many files a process may hold open."""
    try:
        import resource
    except ImportError:  # not on this system
        return
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < FEW_FILES:
        yield Finding("files", "note", f"{soft} may be open at once", "loader.workers may need more: ulimit -n 4096")


def hub() -> Iterator[Finding]:
    """Whether models can be had by their ids, or from folders alone."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        yield Finding(
            "hub", "ok", f"offline by HF_HUB_OFFLINE: models come from folders and from {constants.HF_HUB_CACHE}"
        )
        return
    place = urlsplit(constants.ENDPOINT)
    port = place.port or (80 if place.scheme == "http" else 443)
    try:
        socket.create_connection((place.hostname or "", port), timeout=3).close()
    except OSError as error:
        remedy = "set HF_HUB_OFFLINE=1, so that nothing waits for it, and name models by folders"
        yield Finding("hub", "note", f"{place.hostname} cannot be reached ({error})", remedy)
    else:
        yield Finding("hub", "ok", f"{place.hostname} can be reached")
