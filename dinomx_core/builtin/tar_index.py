"""Where the files of a tar lie, by sample: found once, kept in a file beside the tar or in the cache. No torch."""

import contextlib
import json
import os
import re
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import attrs
import numpy as np

from dinomx_core.builtin import cache
from dinomx_core.builtin.columns import LIST, Column
from dinomx_core.builtin.remote import exists, is_url, local, stamp
from dinomx_core.errors import DataError

FORMAT = "dinomx tar index 2"
ENDING = ".index"
BLOCK = 512
ENDINGS = 1000  # that a tar's files may have
SAMPLE = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")  # WebDataset's rule: the key ends at the first dot of the name
COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
ARRAYS = ("first", "kind", "offset", "length", "letters", "ends")
CLASSES = "cls"  # the column of the `.cls` files; all others are keys of the `.json` files


@attrs.frozen(eq=False)
class TarIndex:
    """S samples of M files. `kinds`: endings, in lower case. Sample s has the files first[s]..first[s + 1], of which kind[m] is the number
    of its ending and offset[m], length[m] its bytes; its key is the UTF-8 letters[ends[s - 1]:ends[s]]. size: of the tar in bytes."""

    size: int
    stamp: str
    kinds: tuple[str, ...]
    first: np.ndarray
    kind: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    letters: np.ndarray
    ends: np.ndarray
    columns: dict[str, Column]

    def __len__(self) -> int:
        return len(self.ends)

    def key(self, sample: int) -> str:
        """A sample's key."""
        begin = int(self.ends[sample - 1]) if sample else 0
        return self.letters[begin : int(self.ends[sample])].tobytes().decode("utf-8", "surrogateescape")

    def files_of(self, kinds: Sequence[str]) -> np.ndarray:
        """(S,) the number of each sample's file of one of the endings, or -1. Raises DataError for a sample that has several."""
        numbers = [number for number, kind in enumerate(self.kinds) if kind in kinds]
        files: np.ndarray = np.flatnonzero(np.isin(self.kind, numbers))
        owners: np.ndarray = np.repeat(np.arange(len(self)), np.diff(self.first))[files]
        if len(twice := np.flatnonzero(np.diff(owners) == 0)):
            found = sorted(self.kinds[self.kind[file]] for file in files[twice[0] : twice[0] + 2])
            raise DataError(
                f'sample "{self.key(int(owners[twice[0]]))}" has several images (.{", .".join(found)}); set image = "{found[0]}" '
                "or another of them",
                "image",
            )
        result: np.ndarray = np.full(len(self), -1, np.int64)
        result[owners] = files
        return result

    def endings(self, sample: int) -> str:
        """The endings of a sample's files, for messages."""
        return ", ".join(f".{self.kinds[kind]}" for kind in self.kind[self.first[sample] : self.first[sample + 1]])


def indexed(tar: str, columns: Sequence[str] = ()) -> TarIndex:
    """The index of a tar, or URL of one, with some columns: the one that is kept where it is of the tar as it is now, else a new one,
    which is kept. Raises DataError where the tar cannot be read."""
    size, state = stamp(tar)
    index = None
    for place, wanted in kept(tar, size, state):
        found = load(place, size, wanted)
        if found and all(name in found.columns for name in columns):
            return found
        index = index or found
    with opened(tar) as file:
        index = index or scan(file, tar, size, state)
        missing = [name for name in columns if name not in index.columns]
        index.columns.update({name: read_column(file, index, name) for name in missing})
    keep(index, tar)
    return index


def kept(tar: str, size: int, state: str) -> Iterator[tuple[Path, str | None]]:
    """Where an index may be kept, and the stamp that it must have: beside the tar, and in the cache. Beside a URL any will do that is of
    a tar of that size: it was made where the tar had another time."""
    if not is_url(tar):
        yield Path(tar + ENDING), state
    elif exists(tar + ENDING):
        yield local(tar + ENDING), None
    place = in_cache(tar, size, state)
    with contextlib.suppress(OSError):
        os.utime(place)
    yield place, state


def in_cache(tar: str, size: int, state: str) -> Path:
    """The index's place in the cache."""
    name = os.path.abspath(tar) if not is_url(tar) else tar
    return cache.place_of(cache.state_of(f"{FORMAT}\n{name}", f"{size} {state}"), tar + ENDING)


@contextlib.contextmanager
def opened(tar: str) -> Iterator[IO[bytes]]:
    """A tar for reading."""
    try:
        with local(tar).open("rb") as file:
            yield file
    except OSError as error:
        raise DataError(f"{tar}: cannot be read: {error.strerror or error}", "path") from None


def scan(file: IO[bytes], tar: str, size: int, state: str) -> TarIndex:
    """Read the headers of a tar. Raises DataError for one that is compressed or damaged, or has a key twice."""
    head = file.read(8)
    for magic, command in COMPRESSED.items():
        if head.startswith(magic):
            raise DataError(
                f"{tar}: is compressed, so that no sample can be read alone; unpack it: {command} {tar}", "path"
            )
    file.seek(0)
    numbers: dict[str, int] = {}
    first: list[int] = []
    kind: list[int] = []
    offset: list[int] = []
    length: list[int] = []
    ends: list[int] = []
    letters = bytearray()
    seen: set[str] = set()
    last = None
    for key, ending, begin, count in members(file, tar, size):
        if key != last:
            if key in seen:
                raise DataError(f'{tar}: has the sample "{key}" in two places; give samples names of their own', "path")
            seen.add(key)
            first.append(len(kind))
            letters += key.encode("utf-8", "surrogateescape")
            ends.append(len(letters))
            last = key
        number = numbers.setdefault(ending, len(numbers))
        if number == ENDINGS:
            raise DataError(
                f'{tar}: its files have more than {ENDINGS} endings, such as ".{ending}": all after the first dot of a name is its '
                "ending; give files names with one dot",
                "path",
            )
        if number in kind[first[-1] :]:
            raise DataError(f'{tar}: has the file "{key}.{ending}" twice; give samples names of their own', "path")
        kind.append(number)
        offset.append(begin)
        length.append(count)
    if not ends:
        raise DataError(f"{tar}: holds no samples (files such as 0001.png)", "path")
    return TarIndex(
        size, state, tuple(numbers), np.array([*first, len(kind)], np.int64), np.array(kind, np.uint16), np.array(offset, np.int64),
        np.array(length, np.int64), np.frombuffer(bytes(letters), np.uint8), np.array(ends, np.int64), {},
    )  # fmt: skip


def members(file: IO[bytes], tar: str, size: int) -> Iterator[tuple[str, str, int, int]]:
    """Key, ending, first byte and length of each file of a tar."""
    name, end, whole = "", 0, False
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while member := archive.next():
                end = archive.offset
                archive.members = []  # type: ignore[attr-defined]  # it would keep all of them
                name = member.name.removeprefix("./")
                match = SAMPLE.fullmatch(name)
                if member.isreg() and match:
                    yield match[1], match[2].lower(), member.offset_data, member.size
            end = archive.offset
        file.seek(end)
        whole = file.read(BLOCK) == bytes(BLOCK)  # tarfile takes what it does not understand for the end
    except tarfile.TarError:
        pass  # told below, as what it takes for the end is
    if not whole:
        after = f'at or after "{name}"' if name else "at its beginning"
        raise DataError(
            f"{tar}: is cut off or damaged {after} (byte {min(end, size)} of {size}); copy or write it again", "path"
        )


def read_column(file: IO[bytes], index: TarIndex, name: str) -> Column:
    """A key of the samples' `.json`, or the text of their `.cls`. What is no value or list of them, or cannot be read, is missing."""
    codes: np.ndarray = np.full(len(index), -1, np.int32)
    values: dict[str, int] = {}
    for sample, member in enumerate(index.files_of([CLASSES] if name == CLASSES else ["json"])):
        if member < 0:
            continue
        data = os.pread(file.fileno(), int(index.length[member]), int(index.offset[member]))
        with contextlib.suppress(ValueError):
            value = data.decode().strip() if name == CLASSES else as_text(json.loads(data), name)
            if value:
                codes[sample] = values.setdefault(value, len(values))
    return Column(codes, tuple(values))


def as_text(notes: Any, name: str) -> str:
    """A key's value as text, a list as JSON behind a mark, or "" where it is neither."""
    value = notes.get(name) if isinstance(notes, dict) else None
    if isinstance(value, list):
        return LIST + json.dumps(value)
    return str(value) if isinstance(value, (str, int, float)) else ""


def keep(index: TarIndex, tar: str) -> None:
    """Write an index beside its tar, or into the cache; where neither can be written to, it is made again the next time."""
    places = [in_cache(tar, index.size, index.stamp)]
    if not is_url(tar):
        places.insert(0, Path(tar + ENDING))
    for place in places:
        with contextlib.suppress(OSError):
            write(index, place)
            return


def write(index: TarIndex, place: Path) -> None:
    """Write an index, whole or not at all."""
    from safetensors.numpy import save

    facts = {"format": FORMAT, "size": index.size, "stamp": index.stamp, "kinds": index.kinds}
    facts["columns"] = {name: column.values for name, column in index.columns.items()}
    arrays = {name: getattr(index, name) for name in ARRAYS}
    arrays.update({f"column {name}": column.codes for name, column in index.columns.items()})
    place.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(prefix=".", suffix=".draft", dir=place.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(save(arrays, {"dinomx": json.dumps(facts)}))
        os.chmod(draft, 0o644)
        os.replace(draft, place)
    finally:
        Path(draft).unlink(missing_ok=True)


def load(place: Path, size: int, state: str | None) -> TarIndex | None:
    """A kept index, unless it is of another tar; `state` None: its size alone tells, since the tar's copy has a time of its own."""
    from safetensors import safe_open

    try:
        with safe_open(place, "np") as file:
            facts = json.loads((file.metadata() or {})["dinomx"])
            if facts["format"] != FORMAT or facts["size"] != size or state not in (None, facts["stamp"]):
                return None
            columns = {
                name: Column(file.get_tensor(f"column {name}"), tuple(v)) for name, v in facts["columns"].items()
            }
            arrays = {name: file.get_tensor(name) for name in ARRAYS}
    except Exception:  # there is none, or something else of that name
        return None
    return TarIndex(size, facts["stamp"], tuple(facts["kinds"]), **arrays, columns=columns)
