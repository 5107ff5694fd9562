"""What the processes that embed tell each other, where they can reach each other: only --overwrite needs it."""

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import torch.distributed as dist

from dinomx_core.errors import TrainingError
from dinomx_core.planning.world import World
from dinomx_core.training.watch import Watch

Tell = Callable[[int, int], None]  # takes how many images are done, and of how many
COUNT, OPENED, HEARD = "dinomx/embedded", "dinomx/opened", "dinomx/heard"  # keys
PATIENCE, LOOK = 600.0, 0.1  # seconds that processes wait for each other, and between two looks


class Together:
    """One process among those of its world: counts images for all, and lets the first go first."""

    def __init__(self, world: World | None, watch: Watch | None, total: int, progress: Tell | None):
        self.world, self.watch, self.total, self.progress = world, watch, total, progress
        self.first = world is None or world.rank == 0
        self.key = f"{COUNT}/{world.attempt if world else 0}"
        self.waiting = self.done = 0

    @property
    def store(self) -> dist.Store | None:
        """Where they meet, once it is reached."""
        return self.watch.store if self.watch else None

    def count(self, images: int) -> None:
        """So many images more are done here."""
        self.waiting += images
        self.done += images
        with contextlib.suppress(RuntimeError):  # it has gone with the first process
            if store := self.store:
                self.done = store.add(self.key, self.waiting)
                self.waiting = 0
        if self.progress and self.first:
            self.progress(self.done, self.total)

    def after_first(self, act: Callable[[], None]) -> None:
        """Do something, the first process before all others; it goes on once they have heard of it."""
        if self.world is None or self.watch is None:
            return act()
        if not self.first and not self._until(lambda store: store.check([OPENED])):
            raise TrainingError(
                f"the first process cannot be reached at {self.world.address}, and only it may delete what --overwrite "
                "replaces; delete the folder yourself and leave --overwrite out"
            )
        act()
        with contextlib.suppress(RuntimeError):
            if not self.first and self.store:
                self.store.add(HEARD, 1)
        if self.first and self._until(lambda store: store.set(OPENED, "yes") or True):
            others = self.world.size - 1
            self._until(lambda store: store.add(HEARD, 0) == others)

    def _until(self, done: Callable[[dist.Store], bool]) -> bool:
        """Wait for something, which is asked of where they meet. Returns whether it came."""
        assert self.watch
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and not (self.watch.connected.is_set() and not self.store):
            with contextlib.suppress(RuntimeError):
                if (store := self.store) and done(store):
                    return True
            time.sleep(LOOK)
        return False


@contextlib.contextmanager
def hosted(world: World, agent: bool) -> Iterator[None]:
    """Within it, the first process of a world without an `agent` is where the others tell what they have to tell."""
    host, _, port = world.address.rpartition(":")
    store = None
    if world.rank == 0 and not agent:
        with contextlib.suppress(RuntimeError, ValueError):  # a port that is taken costs the count, no embedding
            store = dist.TCPStore(
                host, int(port), is_master=True, wait_for_workers=False, timeout=timedelta(seconds=60)
            )
    try:
        yield
    finally:
        del store
