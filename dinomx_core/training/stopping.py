"""Being told to stop: signals and the time limit, noted when they come and heeded between two steps."""

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name))
FILE = "DINOMX_STOP_FILE"  # environment variable: where whoever started this process notes the signal that it was sent


class StopRequest:
    """Within it, SIGTERM, SIGUSR1 and Ctrl-C ask the run to save and leave; a second Ctrl-C ends it at once. A process that `dinomx
    run` has started reads them from a file, and is ended by SIGTERM."""

    def __init__(self, max_hours: float):
        self.max_hours, self.began = max_hours, time.monotonic()
        self.signal = ""
        self.file = os.environ.get(FILE, "")
        self._before: dict[int, Any] = {}

    @property
    def reason(self) -> str:
        """Why to stop, or "" to go on."""
        if self.file and not self.signal and os.path.exists(self.file):
            with open(self.file, encoding="utf-8") as file:
                self.signal = file.read()
        if not self.signal and self.max_hours and time.monotonic() - self.began >= self.max_hours * 3600:
            return f"run.max_hours = {self.max_hours:g}"
        return self.signal

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal == "SIGINT":
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name

    def __enter__(self) -> "StopRequest":
        if (
            threading.current_thread() is threading.main_thread() and not self.file
        ):  # elsewhere Python lets nobody set handlers
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
