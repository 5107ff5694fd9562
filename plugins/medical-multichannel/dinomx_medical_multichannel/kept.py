"""What was decoded, kept up to so many bytes for those who ask for it again."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """A process's own store, safe among threads: what was asked for last stays. Several who ask for the same at once decode it once."""

    def __init__(self, room: int):
        self.room = room
        self._clear()

    def _clear(self) -> None:
        self.process, self.taken = os.getpid(), 0
        self.lock = threading.Lock()
        self.making: dict[Hashable, threading.Lock] = {}
        self.values: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], tuple[T, int]]) -> T:
        """The value of a key; `make` gives it with its bytes, 0 for one that is not to be kept."""
        if (
            self.process != os.getpid()
        ):  # a copy, which has its own memory to mind and may have been made while a lock was held
            self._clear()
        with self.lock:
            if key in self.values:
                self.values.move_to_end(key)
                return self.values[key][0]
            mine = self.making.setdefault(key, threading.Lock())
        with mine:
            with self.lock:
                if key in self.values:
                    return self.values[key][0]
            try:
                value, size = make()
                if 0 < size <= self.room:
                    self._keep(key, value, size)
                return value
            finally:
                with self.lock:
                    self.making.pop(key, None)

    def _keep(self, key: Hashable, value: T, size: int) -> None:
        with self.lock:
            self.values[key] = value, size
            self.taken += size
            while self.taken > self.room:
                self.taken -= self.values.popitem(last=False)[1][1]
