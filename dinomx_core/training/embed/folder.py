"""A folder of embeddings: `embed.json`, shards `part-00000.parquet`, ..., and `pooled.parquet`. No torch."""

import contextlib
import glob
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any
from uuid import uuid4

import attrs

from dinomx_core.builtin.manifest import pyarrow
from dinomx_core.errors import ConfigError, DataError, Problem
from dinomx_core.folders import sync
from dinomx_core.training.embed.tables import Frame, write_parquet

ABOUT, POOLED = "embed.json", "pooled.parquet"
PART = re.compile(r"part-\d{5,}\.parquet")
DRAFT = re.compile(r"\..+\.draft")
FACTS = b"dinomx"  # the key in a Parquet file's metadata
PACKAGES = ("dinomx", "torch", "transformers", "numpy", "pillow", "pyarrow")
REMEDY = "start anew with --overwrite, or choose another --out"


@attrs.frozen
class About:
    """What a folder of embeddings holds. model, images: digests. source, data: as they were named when it was begun."""

    source: str
    model: str
    data: str
    images: str
    count: int
    tokens: str
    shard_size: int
    channels: int = 0
    batch_size: int = 0

    @property
    def key(self) -> str:
        """Stands for what shards must have in common."""
        same = [self.model, self.images, self.count, self.tokens, self.shard_size]
        return hashlib.blake2b(json.dumps(same).encode(), digest_size=8).hexdigest()

    def differences(self, there: Mapping[str, Any]) -> list[str]:
        """How a folder's `embed.json` differs, in words. A model that is not known yet ("") is not compared."""
        found = []
        if self.model and there["model"] != self.model:
            found.append(f"of another model ({there['source']})")
        if there["images"] != self.images:
            found.append(f"of other images ({there['count']} of {there['data']})")
        if there["tokens"] != self.tokens:
            found.append(f"of the tokens {there['tokens']}, not {self.tokens}")
        if there["shard_size"] != self.shard_size:
            found.append(f"in shards of {there['shard_size']} images, not {self.shard_size}")
        return found


def check_folder(path: Path, about: About, overwrite: bool) -> None:
    """Raise ConfigError for a folder of other embeddings unless told to overwrite it, and always for one that holds something else."""
    names = sorted(entry.name for entry in path.iterdir()) if path.exists() else []
    file = path / ABOUT
    if not file.exists():
        if others := [name for name in names if not DRAFT.fullmatch(name)]:
            message = f"{path}: holds other files ({', '.join(others[:3])}); choose another --out"
            raise ConfigError([Problem(message)])
        return
    if overwrite:
        return
    try:
        found = about.differences(json.loads(file.read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{file}: cannot be read ({type(error).__name__}: {error}); {REMEDY}"
        raise ConfigError([Problem(message)]) from None
    if found:
        raise ConfigError([Problem(f"{path}: holds embeddings {' and '.join(found)}; {REMEDY}")])


class EmbedFolder:
    """One folder of shards; shard i holds the images from i * shard_size on."""

    def __init__(self, path: Path, about: About):
        self.path, self.about = path, about
        self.shards = -(-about.count // about.shard_size)

    def open(self, overwrite: bool) -> None:
        """Go on with what is there, or begin. Any number of processes may do so at a time, but only one may overwrite, before the others.
        Raises ConfigError where something else is there."""
        check_folder(self.path, self.about, overwrite)
        with said(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            if overwrite:
                self.clear()
        if not (self.path / ABOUT).exists():
            self.write_about({})

    def clear(self) -> None:
        """Delete what was written here, the description last: until then the folder is known for one of ours."""
        ours = [p for p in self.path.iterdir() if PART.fullmatch(p.name) or DRAFT.fullmatch(p.name) or p.name == POOLED]
        for path in (*ours, self.path / ABOUT):
            path.unlink(missing_ok=True)

    def part(self, number: int) -> Path:
        """A shard's file."""
        return self.path / f"part-{number:05}.parquet"

    def rows(self, number: int) -> range:
        """A shard's images."""
        size = self.about.shard_size
        return range(number * size, min((number + 1) * size, self.about.count))

    def facts(self, number: int) -> dict[str, Any] | None:
        """What a shard says of itself ("images": how many there are, "unreadable": rows and what is wrong with them); None where it is
        not there, not whole or of other embeddings."""
        pa, parquet = pyarrow()
        try:
            footer = parquet.read_metadata(self.part(number))
            facts = json.loads(footer.metadata[FACTS])
            return {**facts, "images": footer.num_rows} if facts["key"] == self.about.key else None
        except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):
            return None

    def write(self, number: int, frames: Iterator[Frame], unreadable: list[tuple[int, str]]) -> None:
        """Write a shard; `unreadable` is complete once the frames are."""
        clear_drafts(self.part(number))
        facts = lambda: {FACTS: json.dumps({"key": self.about.key, "unreadable": unreadable}).encode()}  # noqa: E731
        write_whole(self.part(number), lambda draft: write_parquet(draft, frames, facts))

    def read_about(self) -> dict[str, Any]:
        """The description as it is."""
        return json.loads((self.path / ABOUT).read_text("utf-8"))

    def write_about(self, found: Mapping[str, Any]) -> None:
        """Write the description, at the end with what was found."""
        versions = {name: version_of(name) for name in PACKAGES}
        text = json.dumps({**attrs.asdict(self.about), "versions": versions, **found}, indent=1) + "\n"
        write_whole(self.path / ABOUT, lambda draft: draft.write_text(text, "utf-8"))


def version_of(package: str) -> str:
    """A package's version, or "missing"."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


@contextlib.contextmanager
def said(place: Path) -> Iterator[None]:
    """Within it, what the disk refuses is an error of ours."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{place}: cannot be written: {error.strerror or error}") from None


def clear_drafts(place: Path) -> None:
    """Delete what processes that were killed have left of a file."""
    with said(place):
        for draft in place.parent.glob(f".{glob.escape(place.name)}.*.draft"):
            draft.unlink(missing_ok=True)


def write_whole(place: Path, write: Callable[[Path], Any]) -> Any:
    """Let `write` fill a draft that no other process writes, sync it and move it to its place: a reader, or a crash, finds all of it or
    nothing. Returns what `write` does; raises DataError when the place cannot be written to."""
    draft = place.with_name(f".{place.name}.{uuid4().hex[:8]}.draft")
    with said(place):
        try:
            result = write(draft)
            sync(draft)
            os.replace(draft, place)
            sync(place.absolute().parent)
            return result
        finally:
            draft.unlink(missing_ok=True)
