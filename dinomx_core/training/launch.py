"""Starting a run's processes through torch's elastic launcher."""

import contextlib
import json
import logging
import signal
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous.api import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from dinomx_core.artifacts import write_atomically
from dinomx_core.declare.processes import Processes
from dinomx_core.errors import ConfigError, Problem, TrainingError
from dinomx_core.planning.plan import Plan
from dinomx_core.training.hosts import address_towards, is_here
from dinomx_core.training.stopping import SIGNALS
from dinomx_core.training.watch import HEARD, NOW, STOP, read_outcome
from dinomx_core.training.worker import ALONE, JOB


def launch(plan: Plan, overwrite: bool, resume: bool, quiet: bool) -> None:
    """Start this host's processes of a run, and wait until they end. When one dies all are started again, from the newest checkpoint.
    Raises what the run raises."""
    options = plan.spec.parallelism.options
    assert isinstance(options, Processes)
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the run itself tells
    check_port(options)
    here = plan.batch.world_size // options.hosts
    meeting: dict[str, Any] = {
        "timeout": options.patience,
        "join_timeout": options.patience,
        "read_timeout": min(60, round(options.timeout)),
        "rank": max(0, options.host),
    }
    ours = None
    if options.hosts > 1:
        host, _, port = options.address.rpartition(":")
        ours = address_towards(host, int(port))
        meeting["is_host"] = is_here(host) if options.rendezvous == "c10d" else options.host == 0
    with tempfile.TemporaryDirectory(prefix="dinomx-") as name:
        folder = Path(name)
        modules = [p.module for p in plan.registry.plugins if p.version == "unpackaged"]
        job = {
            "text": plan.source.text,
            "place": plan.source.place,
            "settings": plan.source.settings,
            "command": plan.source.command,
            "plugins": modules,
            "path": [entry for entry in sys.path if entry],
            "overwrite": overwrite,
            "resume": resume,
            "quiet": quiet,
        }
        (folder / JOB).write_text(json.dumps(job), "utf-8")
        config = LaunchConfig(
            min_nodes=options.hosts,
            max_nodes=options.hosts,
            nproc_per_node=here,
            run_id=plan.spec.run.name if options.hosts > 1 else uuid.uuid4().hex,
            rdzv_backend="c10d" if options.hosts == 1 else options.rendezvous,
            rdzv_endpoint=options.address if options.hosts > 1 else "localhost:0",
            rdzv_configs=meeting,
            local_addr=ours,
            max_restarts=options.restarts,
            monitor_interval=0.1,
            logs_specs=DefaultLogsSpecs(log_dir=name),
        )
        failures: list[BaseException] = []

        def start() -> None:
            try:
                elastic_launch(config, sys.executable)("-m", "dinomx_core.training.worker", name)
            except BaseException as error:
                failures.append(error)

        # The launcher handles signals where it runs in the main thread; here they ask the run to save first.
        thread = threading.Thread(target=start, daemon=True)
        with forwarded(folder / STOP):
            thread.start()
            while thread.is_alive() and not (words := cut_off(folder, options)):
                thread.join(0.2)
        if outcome := read_outcome(folder):
            raise outcome.error()
        for error in failures:
            raise said(error, options) from None
        if words:
            raise TrainingError(f"{words}; `--resume` goes on from the newest checkpoint")


def cut_off(folder: Path, options: Processes) -> str:
    """What a process of this host said that lost the others, and was not started again in all the time that this takes, because the
    launcher itself waits for a host that it cannot reach; or ""."""
    patience = HEARD + (options.patience if options.restarts else 0.0)
    for file in folder.glob(ALONE.format("*")) if options.hosts > 1 else ():
        with contextlib.suppress(OSError):
            if time.time() - file.stat().st_mtime > patience:
                return file.read_text("utf-8")
    return ""


def said(error: BaseException, options: Processes) -> BaseException:
    """What to say of a failure that the processes could not tell themselves."""
    if isinstance(error, ChildFailedError):
        rank, failure = error.get_first_failure()
        how = (
            f"ended by {failure.signal_name()}" if failure.exitcode < 0 else f"ended with exit code {failure.exitcode}"
        )
        if failure.error_file != "<N/A>":
            data = failure.error_file_data["message"]
            how = str(data["message"] if isinstance(data, dict) else data).partition(": ")[2]
        count = "1 restart" if options.restarts == 1 else f"{options.restarts} restarts"
        times = f"after {count}: " if options.restarts else ""
        return TrainingError(f"{times}rank {rank}: {how}; `--resume` goes on from the newest checkpoint")
    if isinstance(error, (RendezvousError, TimeoutError, ConnectionError, RuntimeError)):
        first = str(error).strip().partition("\n")[0]
        return TrainingError(
            f"the hosts did not find each other at {options.address or 'localhost'} within {options.patience:g} s, or lost each other "
            f"({type(error).__name__}: {first}); see that all {options.hosts} run the same command and reach that address"
        )
    return error


def check_port(options: Processes) -> None:
    """Raise ConfigError where the port at which hosts meet is taken on the host that opens it, or that host is not to be found."""
    if options.hosts == 1:
        return
    host, _, port = options.address.rpartition(":")
    try:
        if not is_here(host):
            return
    except OSError as error:
        message = f'"{host}" is no host that can be found ({error.strerror})'
        raise ConfigError([Problem(message, "parallelism.address")]) from None
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", int(port)))
        except OSError as error:
            message = f"port {port} cannot be opened ({error.strerror}); choose another"
            raise ConfigError([Problem(message, "parallelism.address")]) from None


@contextlib.contextmanager
def forwarded(file: Path) -> Iterator[None]:
    """Within it, a signal to stop is written down for the processes, which save and leave; a second Ctrl-C ends all at once."""
    before: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        again = number == signal.SIGINT and file.exists()
        write_atomically(file, NOW if again else signal.Signals(number).name)

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
