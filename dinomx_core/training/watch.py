"""One of several processes fails: the others learn of it and end, and it is told once."""

import contextlib
import json
import os
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import attrs
import torch.distributed as dist

from dinomx_core.artifacts import write_atomically
from dinomx_core.errors import ConfigError, DataError, DinomxError, PluginError, Problem, Stopped, TrainingError
from dinomx_core.planning.world import World
from dinomx_core.training.worker import ALONE

OUTCOME, STOP = "outcome.json", "stop"  # files in the folder of processes that `dinomx run` has started
NOW = "now"  # in the second: end at once
EVERY = 0.5  # seconds between two looks
HEARD = 10.0  # seconds within which the others hear of an error, or cannot be reached
AGAIN = 0.05  # seconds between two looks whether they have
MOMENT = 1.0  # seconds within which a thread comes back from the store, if ever
LOST = 1  # exit code of a process that lost the others: they may be started again
RUNS: Counter[int] = Counter()  # how many this process has watched, as which rank


class Crash(DinomxError):
    """What nobody foresaw, with its traceback, from another process."""

    exit_code = 70


class LostContact(DinomxError):
    """The other processes of a run cannot be reached any more."""


KINDS: dict[str, type[DinomxError]] = {
    kind.__name__: kind
    for kind in (ConfigError, PluginError, DataError, TrainingError, Stopped, Crash, LostContact, DinomxError)
}


@attrs.frozen
class Outcome:
    """How a run failed: what to say, and as which kind of error."""

    message: str
    kind: str

    @classmethod
    def of(cls, error: BaseException, rank: int) -> "Outcome":
        """An error of ours is told with its rank, unless all processes agreed to stop; another one with its traceback."""
        if isinstance(error, Stopped):
            return cls(str(error), "Stopped")
        if isinstance(error, DinomxError):
            kind = next(base.__name__ for base in type(error).__mro__ if base.__name__ in KINDS)
            return cls(f"rank {rank}: {error}", kind)
        return cls(f"rank {rank}:\n{''.join(traceback.format_exception(error))}".rstrip(), "Crash")

    def error(self) -> DinomxError:
        """The error to raise for it."""
        return ConfigError([Problem(self.message)]) if self.kind == "ConfigError" else KINDS[self.kind](self.message)


def read_outcome(folder: Path) -> Outcome | None:
    """What processes that `dinomx run` has started left in their folder."""
    file = folder / OUTCOME
    return Outcome(**json.loads(file.read_text("utf-8"))) if file.exists() else None


def write_outcome(folder: Path, outcome: str) -> None:
    """Leave it there as JSON. Several processes may do so at a time, each with a draft of its own."""
    draft = folder / f".{OUTCOME}.{os.getpid()}.draft"
    draft.write_text(outcome, "utf-8")
    os.replace(draft, folder / OUTCOME)


def lost_others(error: BaseException) -> bool:
    """Whether an error is of the connection to other processes."""
    if isinstance(error, dist.DistError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        sign in text
        for sign in (
            "gloo",
            "NCCL",
            "Connection closed by peer",
            "Connection reset",
            "Timed out waiting",
            "pair closure",
        )
    )


def words(error: BaseException) -> str:
    """Such an error for a reader."""
    what = str(error).strip().partition("\n")[0]
    if "imed out" in what or "timeout" in what.lower():
        return f"another process or host did not answer within parallelism.timeout ({what})"
    return f"lost contact to the other processes ({what})"


class Watch:
    """Looks from a thread whether another process has failed, and then ends this one; tells the others when this one fails.

    folder: of processes that `dinomx run` has started, which end with exit code 0 where starting them again would not help.
    """

    def __init__(self, world: World, folder: Path | None):
        self.world, self.folder, self.parent = world, folder, os.getppid()
        RUNS[world.rank] += 1
        of = f"dinomx/{world.attempt}/{RUNS[world.rank]}"  # what an earlier run of the same processes told is none of this one's
        self.key, self.heard = f"{of}/outcome", f"{of}/heard"
        self.done, self.telling = threading.Event(), False
        self.store: dist.Store | None = None
        self.connected = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        host, _, port = self.world.address.rpartition(":")
        with contextlib.suppress(RuntimeError, ValueError):
            self.store = dist.TCPStore(
                host, int(port), is_master=False, wait_for_workers=False, timeout=timedelta(seconds=600)
            )
        self.connected.set()
        while not self.done.wait(EVERY):
            if self.folder and (os.getppid() != self.parent or self._now()):
                os._exit(LOST)
            try:
                if self.store and self.store.check([self.key]) and not self.done.is_set():  # else it may be our own
                    outcome = Outcome(**json.loads(self.store.get(self.key)))
                    with contextlib.suppress(RuntimeError):  # who told it has not waited
                        self.store.add(self.heard, 1)
                    self.leave(outcome)
            except RuntimeError:  # the store has gone, and with it the run
                self.store = None
        with contextlib.suppress(RuntimeError):
            if self.store and not self.telling:  # who ends here need not be waited for
                self.store.add(self.heard, 1)

    def end(self) -> None:
        """Look no longer. A thread that comes back from the store while Python ends would abort the process."""
        self.done.set()
        self.thread.join(MOMENT)

    def _now(self) -> bool:
        with contextlib.suppress(OSError):
            return self.folder is not None and (self.folder / STOP).read_text("utf-8") == NOW
        return False

    def leave(self, outcome: Outcome) -> None:
        """End this process, because of another one."""
        if self.folder:
            write_outcome(self.folder, json.dumps(attrs.asdict(outcome)))
        os._exit(0 if self.folder else outcome.error().exit_code)

    def publish(self, outcome: Outcome) -> bool:
        """Tell the others. Returns whether this process was the first to tell something, once all have heard it: the store may end with
        this process."""
        self.telling = True
        self.done.set()
        told: list[str] = []
        end = time.monotonic() + HEARD

        def tell() -> None:
            if not self.connected.wait(HEARD):
                return
            with contextlib.suppress(RuntimeError):
                if store := self.store:
                    told.append(store.compare_set(self.key, "", text).decode())
                    heard = store.add(self.heard, 1)
                    while heard < self.world.size and time.monotonic() < end:
                        time.sleep(AGAIN)
                        heard = store.add(self.heard, 0)

        text = json.dumps(attrs.asdict(outcome))
        thread = threading.Thread(target=tell, daemon=True)  # a store that cannot be reached keeps whoever asks it
        thread.start()
        thread.join(HEARD + MOMENT)
        found = told[0] if told else text
        if self.folder:
            write_outcome(self.folder, found)
        return found == text


@contextlib.contextmanager
def watched(world: World, folder: Path | None) -> Iterator[Watch]:
    """Within it, an error of any process ends all of them. Raises it in the first that tells it; the others end silently."""
    watch = Watch(world, folder)
    watch.thread.start()
    try:
        yield watch
    except BaseException as error:
        if lost_others(error):
            time.sleep(2.0 if folder else 4 * EVERY)  # whoever caused it may say so, or is found dead
            error = LostContact(words(error))
            if folder:
                write_atomically(folder / ALONE.format(world.rank), str(error))
                raise error from None
        outcome = Outcome.of(error, world.rank)
        if not watch.publish(outcome):
            os._exit(outcome.error().exit_code if folder is None else 0)
        first = outcome.error()
        first.alone = True
        raise first from None
    finally:
        watch.end()
