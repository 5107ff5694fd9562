"""A folder of fetched files, shared by every process of a machine and bounded: what was not used for longest goes first. No torch."""

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dinomx_core.errors import DataError

GIGABYTES = 20.0  # that the cache may hold where DINOMX_CACHE_GB does not say
GRACE = 120.0  # seconds that a file stays after it was handed out, so that it can be opened; opened, it stays readable
LOOKS, KEPT = 1 / 64, 3 / 4  # shares of the bound: fetched by a process before it looks at the folder again; kept then
ABANDONED = 86400.0  # seconds after which a draft has nobody who writes it
NAME = 80  # last letters of a file's own name that its name in the cache ends with
_fetched = 0  # bytes since this process looked at the folder


def folder() -> Path:
    """Where fetched files lie: DINOMX_CACHE, or below XDG_CACHE_HOME."""
    if given := os.environ.get("DINOMX_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dinomx" / "files"


def bound() -> int:
    """Bytes that it may hold. Raises DataError where DINOMX_CACHE_GB is no number above 0."""
    given = os.environ.get("DINOMX_CACHE_GB", "")
    try:
        gigabytes = float(given) if given else GIGABYTES
    except ValueError:
        gigabytes = 0.0
    if not gigabytes > 0:
        raise DataError(f'DINOMX_CACHE_GB: expected a number of gigabytes above 0, got "{given}"')
    return int(gigabytes * 1e9)


def place_of(state: str, name: str) -> Path:
    """Where a file lies whose object is in that state; it ends as the object does, since endings say what a file is."""
    own = name.rpartition("/")[2][-NAME:]
    return folder() / state[:2] / f"{state}-{own}"


def state_of(name: str, version: str) -> str:
    """What stands for a version of something with a name."""
    return hashlib.blake2b(f"{name}\n{version}".encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def find(state: str, name: str) -> Path | None:
    """A file that is there already; it counts as used now."""
    file = place_of(state, name)
    try:
        os.utime(file)
    except OSError:
        return file if file.exists() else None  # somebody else's cache: readable, but not to be touched
    return file


def fetch(state: str, name: str, write: Callable[[Path], None], key: str = "path") -> Path:
    """Let `write` fill a draft, and move it to its place: others see all of it or nothing. Whoever wants the same at the same time
    waits. Raises DataError where the folder cannot be written to."""
    file = place_of(state, name)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with alone(folder() / "locks" / state[:3]):
            if there := find(state, name):
                return there
            handle, draft = tempfile.mkstemp(prefix=".", suffix=".draft", dir=file.parent)
            os.close(handle)
            try:
                write(Path(draft))
                os.chmod(draft, 0o644)
                os.replace(draft, file)
            finally:
                Path(draft).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"{name}: the cache {folder()} cannot be written to ({error.strerror or error}); set DINOMX_CACHE to a folder with "
            "room, or DINOMX_CACHE_GB to less",
            key,
        ) from None
    came(file.stat().st_size)
    return file


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[None]:
    """One process and thread at a time, where the system has such locks; a lost lock costs a second download only."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        with contextlib.suppress(OSError):  # some network file systems have none
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def came(size: int) -> None:
    """Note so many fetched bytes, and make room when there were many. Every process looks for itself, so the folder may for a while
    hold a little more than its bound."""
    global _fetched
    _fetched += size
    if _fetched >= LOOKS * bound():
        _fetched = 0
        make_room(bound())


def make_room(limit: int) -> None:
    """Where files take more than `limit` bytes, remove those not used for longest until a part of it is free; none that was handed
    out within the last moments. Abandoned drafts go too."""
    now, total = time.time(), 0
    files: list[tuple[float, int, str]] = []
    for part in folder().glob("[0-9a-f][0-9a-f]"):
        with contextlib.suppress(OSError), os.scandir(part) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # another process removed it
                    found = entry.stat()
                    if entry.name.endswith(".draft"):
                        if now - found.st_mtime > ABANDONED:
                            os.unlink(entry.path)
                        continue
                    files.append((found.st_mtime, found.st_size, entry.path))
                    total += found.st_size
    if total <= limit:
        return
    for used, size, path in sorted(files):
        if total <= KEPT * limit or now - used < GRACE:
            return
        with contextlib.suppress(OSError):
            os.unlink(path)
        total -= size
