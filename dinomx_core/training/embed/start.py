"""Embedding in one process, in some that are started here, or as one of those that torchrun or srun has started."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import torch.distributed as dist

from dinomx_core.errors import Stopped, TrainingError
from dinomx_core.planning.world import started
from dinomx_core.training.embed.folder import ABOUT
from dinomx_core.training.embed.job import EmbedJob
from dinomx_core.training.embed.share import KEPT, Source, prepared, result, share
from dinomx_core.training.embed.together import COUNT, Tell, hosted
from dinomx_core.training.launch import forwarded
from dinomx_core.training.watch import STOP, read_outcome, watched
from dinomx_core.training.worker import JOB

LOOK, MOMENT = 0.1, 0.5  # seconds between two looks at the processes, and until a signal has reached all of them


def embed(
    job: EmbedJob, source: Source, processes: int, plugins: Sequence[str], progress: Tell | None
) -> dict[str, Any]:
    """Do a job, or this process's share of it. Returns what `share` does. plugins: modules of declarations that are not installed."""
    world = started(os.environ)
    world = world if world and world.size > 1 else None
    if world:
        agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        with hosted(world, agent), watched(world, None) as watch:
            job.check(processes, world)
            return share(job, source, world, watch, progress)
    job.check(processes, None)
    if processes == 1:
        return share(job, source, None, None, progress)
    images = prepared(job, source, None)
    launch(attrs.evolve(job, checked=True), processes, plugins, progress, len(images))
    found = json.loads((job.place / ABOUT).read_text("utf-8"))
    return result(found["embedded"], tuple(found["shape"]), found["unreadable"], found["pooled"] if job.pool else None)


def launch(job: EmbedJob, processes: int, plugins: Sequence[str], progress: Tell | None, total: int) -> None:
    """Start processes and wait until they end; `progress` is told what all of them have done. Raises what one of them raises, and leaves
    none behind."""
    with tempfile.TemporaryDirectory(prefix="dinomx-") as name:
        folder = Path(name)
        about = {"embed": attrs.asdict(job), "plugins": list(plugins), "path": [entry for entry in sys.path if entry]}
        (folder / JOB).write_text(json.dumps(about), "utf-8")
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=60))
        children: list[subprocess.Popen] = []
        told = -1
        with forwarded(folder / STOP):
            try:
                for rank in range(processes):
                    command = [sys.executable, "-m", "dinomx_core.training.worker", name]
                    children.append(
                        subprocess.Popen(
                            command, env=environment(rank, processes, store.port), stdin=subprocess.DEVNULL
                        )
                    )
                while not ended(children):
                    time.sleep(LOOK)
                    done = store.add(f"{COUNT}/0", 0)
                    if progress and done != told:
                        progress(done, total)
                        told = done
                dead = [(rank, child.returncode) for rank, child in enumerate(children) if child.returncode]
                if dead:
                    time.sleep(MOMENT)  # a signal to all processes may have reached that one first
                stopped = (folder / STOP).exists()
            finally:
                for child in children:
                    child.kill()
                    child.wait()
        if outcome := read_outcome(folder):
            raise outcome.error()
        if dead and stopped:
            raise Stopped(f"at once; {KEPT}")
        if dead:
            rank, code = dead[0]
            how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            raise TrainingError(f"rank {rank}: {how}; {KEPT}")
    if progress and told != total:
        progress(total, total)


def environment(rank: int, processes: int, port: int) -> dict[str, str]:
    """What tells a process which of them it is, as torchrun does."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RESTART_COUNT": 0}
    ranks = {"RANK": rank, "WORLD_SIZE": processes, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": processes}
    return {**os.environ, **{name: str(value) for name, value in {**place, **ranks}.items()}}


def ended(children: Sequence[subprocess.Popen]) -> bool:
    """Whether all of them have ended, or one has died."""
    codes = [child.poll() for child in children]
    return any(codes) or None not in codes
