"""A run's report, as the loop knows it: told of rows by the run folder, asked to look once a step. Nothing in it stops a run."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

from dinomx_core.artifacts import ROWS, RunFolder, write_atomically
from dinomx_core.errors import Stopped
from dinomx_core.training.build import Parts
from dinomx_core.training.report.page import page
from dinomx_core.training.report.pictures import FOLDER, Pictures
from dinomx_core.training.report.story import Story
from dinomx_core.training.report.told import Telling
from dinomx_core.training.tracking import Trackers

FILE = "report.html"
SHARE = 0.02  # of a run's time, at most, that writing the report takes


class Record:
    """What is told of a run beside its rows: report, pictures, trackers."""

    def __init__(self, parts: Parts, folder: RunFolder, step: int, note: Callable[[str], None]):
        self.parts, self.folder, self.note = parts, folder, note
        self.options, self.faults = parts.plan.spec.report, set[str]()
        self.telling = Telling(parts.plan)
        self.story = Story(parts.plan, folder.path, self.telling)
        self.stale, self.spent, self.began = False, 0.0, time.perf_counter()
        self.pictures: Pictures | None = None
        self.trackers = Trackers(parts.plan, folder, step, self.telling, note) if folder.writes else None
        if not self.options.enabled or not self.options.images:
            shutil.rmtree(folder.path / FOLDER, ignore_errors=True)
        if not self.options.enabled:
            (folder.path / FILE).unlink(missing_ok=True)
            return
        if folder.writes:
            for name in ROWS if step else ():
                for row in folder.rows(name):
                    self.story.add(name, row)
            folder.listeners.append(self.hear)
        if self.options.images:
            self.pictures = Pictures(parts, folder, self.telling)
            if folder.writes:
                with self.guarded("pictures"):
                    self.pictures.prepare(step)

    def hear(self, kind: str, row: dict) -> None:
        """A row was written."""
        self.story.add(kind, row)
        self.stale = self.stale or kind != "metrics"

    def look(self, step: int) -> None:
        """Before a step, and after the last: draw where that is due, and write what is new."""
        plan, lengths = self.parts.plan, self.parts.plan.lengths
        if not self.options.enabled:
            return
        due = step == plan.steps or step % max(1, lengths["report.every"]) == 0
        if due and self.pictures:
            with self.guarded("pictures"):
                self.pictures.look(step)
        if due or self.stale or step % max(1, lengths["checkpoint.every"]) == 0:
            self.write()

    def write(self, state: str = "running", reason: str = "") -> None:
        """Write the page, unless it runs on and writing has taken too much of its time."""
        now = time.perf_counter()
        late = self.spent > SHARE * (now - self.began) and state == "running"
        if not self.folder.writes or not self.options.enabled or (late and (self.folder.path / FILE).exists()):
            return
        with self.guarded("report"):
            write_atomically(self.folder.path / FILE, page(self.story, state, reason, self.drawn()))
            self.stale = False
        self.spent += time.perf_counter() - now

    def drawn(self) -> dict[str, Any]:
        """The index of what was drawn."""
        return self.pictures.index if self.pictures else {}

    def close(self, error: BaseException | None) -> None:
        """The run has ended, by an error unless it has done all its steps."""
        state = "done" if error is None else "stopped" if isinstance(error, (Stopped, KeyboardInterrupt)) else "failed"
        self.write(state, "" if error is None else self.telling.error(error))
        if self.trackers:
            self.trackers.close("" if error is None else self.telling.error(error))

    @contextlib.contextmanager
    def guarded(self, what: str) -> Iterator[None]:
        """Whatever goes wrong in telling is told once a kind, and the run goes on."""
        try:
            yield
        except Exception as error:
            if what not in self.faults:
                self.faults.add(what)
                self.note(f"{what}: {type(error).__name__}: {error}; the run goes on without")


@contextlib.contextmanager
def recorded(parts: Parts, folder: RunFolder, step: int, note: Callable[[str], None]) -> Iterator[Record]:
    """Within it a run that starts, or goes on, at a step is recorded; at its end the report says how it ended."""
    record = Record(parts, folder, step, note)
    try:
        yield record
    except BaseException as error:
        record.close(error)
        raise
    record.close(None)
