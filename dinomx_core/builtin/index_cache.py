"""What readers found in files, kept: a plan, its evaluations and the run look at the same ones, and so does the next run."""

import hashlib
import importlib.util
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dinomx_core.builtin import cache
from dinomx_core.declare.reading import Index, Stack

LARGE = 500  # files whose index is kept on disk, too
KEPT = 8  # indices of this process
seen: dict[str, Index] = {}


def index_of(component: Any, options: Any, files: Sequence[Path]) -> Index:
    """What a reader finds in files, looked up again only where a file, the options or the reader have changed."""
    key = key_of(component, options, files)
    if key not in seen:
        place = cache.folder() / "indices" / f"{key}.json"
        found = read(place) if len(files) >= LARGE else None
        if found is None:
            found = component.index(options, files)
            if len(files) >= LARGE and not found.faults:  # a fault may be mended by installing something
                write(place, found)
        while len(seen) >= KEPT:
            del seen[next(iter(seen))]
        seen[key] = found
    return seen[key]


def key_of(component: Any, options: Any, files: Sequence[Path]) -> str:
    """Stands for the files as they are, the options and the reader's code."""
    digest = hashlib.blake2b(f"{component.name} {options!r}".encode(), digest_size=16)
    spec = importlib.util.find_spec(component.build.partition(":")[0])
    code = sorted(Path(spec.origin).parent.glob("*.py")) if spec and spec.origin else []
    for file in (*code, *files):
        try:
            about = os.stat(file)
            digest.update(f"{file}\0{about.st_size}\0{about.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
        except OSError:
            digest.update(f"{file}\0\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def read(place: Path) -> Index | None:
    """A kept index, where it is there and whole."""
    try:
        found = json.loads(place.read_text("utf-8"))
        stacks = [
            Stack(tuple(map(tuple, planes)), None if used is None else tuple(used), name, group)
            for planes, used, name, group in found["stacks"]
        ]
        return Index(tuple(stacks), (), tuple(found["notes"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(place: Path, index: Index) -> None:
    """Keep it, if there is room: without it, files are looked at again."""
    rows = [(stack.planes, stack.used, stack.id, stack.group) for stack in index.stacks]
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=place.parent, suffix=".draft", delete=False, encoding="utf-8"
        ) as draft:
            json.dump({"stacks": rows, "notes": index.notes}, draft)
        os.replace(draft.name, place)
    except OSError:
        return
