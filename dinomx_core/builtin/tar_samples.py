"""The samples of many tars by number: which there are, and one read from its place. No torch."""

import hashlib
import io
import json
import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

import attrs
import numpy as np

from dinomx_core.builtin.columns import Column, gathered, in_order, single
from dinomx_core.builtin.labels import coded, missing
from dinomx_core.builtin.looking import Look, look
from dinomx_core.builtin.remote import exists, is_url, listing, local
from dinomx_core.builtin.sources import Shards
from dinomx_core.builtin.tar_index import CLASSES, TarIndex, indexed
from dinomx_core.declare.reading import Plane, PlaneReader
from dinomx_core.errors import DataError
from dinomx_core.training.construct import construct

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")  # the compressed ones are refused by name
FACTS = "shards.json"
ARRAY = "npy"
OPEN = 64  # tars that a process keeps open
AT_ONCE = 8  # tars looked through at a time: of those elsewhere each look is a wait


@attrs.frozen(eq=False)
class Sample:
    """One sample. plane: its pixels, with units and range as its `.json` says them. notes: what the `.json` holds."""

    id: str
    plane: Plane
    notes: dict[str, Any]


class Samples:
    """Samples of tars, in their order. What is kept of each is some numbers in arrays; tars stay open, the last used ones.

    labels: as `labels` has them. groups: (N,) numbers in `group_names`, -1 where there is none. unreadable: samples that are left out.
    """

    def __init__(self, options: Shards):
        self.options = options
        self.tars = tars_of(options.path)
        self.facts = facts_of(self.tars)
        self.reader, endings = reader_of(options, bool(self.facts))
        self.own_arrays = options.reader is None or f".{ARRAY}" not in options.reader.component.suffixes
        labels = [options.label] if options.label else [CLASSES, "label"]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            indexes = pool.map(lambda tar: indexed(tar, [*labels, options.group]), self.tars)
            parts = [Part.of(tar, index, endings) for tar, index in zip(self.tars, indexes)]
        self.unreadable = tuple(fault for part in parts for fault in part.faults)
        self.starts = np.cumsum([0, *(len(part.rows) for part in parts)])
        if not len(self):
            raise DataError(f"no sample has an image; the first: {self.unreadable[0]}", "image")
        self.sizes = [part.index.size for part in parts]
        self.keys, self.ends = keys_of(parts)
        self.place = np.concatenate(
            [part.place for part in parts]
        )  # (N, 4): first byte and length of the image, and of the `.json`
        self.kinds = tuple(dict.fromkeys(kind for part in parts for kind in part.index.kinds))
        self.kind = np.concatenate([part.kinds(self.kinds) for part in parts])
        found = [gathered([part.column(name) for part in parts]) for name in labels]
        labelled = next((column for column in found if column.values), found[-1])
        kind = self.facts.get("label_kind", options.label_kind)
        self.classes, self.labels = coded(labelled, kind, options.separator, self.facts.get("classes", ()))
        self.group_names, self.groups = in_order(single(gathered([part.column(options.group) for part in parts])), ())
        told = not missing(self.labels).all()
        self.digest = digest_of(parts)
        self._open: OrderedDict[int, IO[bytes]] = OrderedDict()
        self._lock = threading.Lock()
        for name, values, key in ((options.label, told, "label"), (options.group, self.group_names, "group")):
            if name not in ("", "group") and not values:
                raise DataError(f'no sample has a "{name}"; {self._notes_of_first()}', key)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def _notes_of_first(self) -> str:
        notes = self._notes(0)
        return f"the first one's .json has {', '.join(notes)}" if notes else "the first one has no .json"

    def id(self, index: int) -> str:
        """A sample's key, below its tar's name."""
        key = self.keys[self.ends[index] : self.ends[index + 1]].tobytes().decode("utf-8", "surrogateescape")
        return f"{self.tar_of(index)[1].rpartition('/')[2].removesuffix('.tar')}/{key}"

    def tar_of(self, index: int) -> tuple[int, str]:
        """The tar that a sample lies in: its number and name."""
        number = int(np.searchsorted(self.starts, index, "right")) - 1
        return number, self.tars[number]

    def read(self, index: int) -> Sample:
        """One sample, read from its place. Raises DataError, naming tar and sample, when it cannot be read."""
        notes = self._notes(index)
        kind = self.kinds[self.kind[index]]
        data = self._bytes(index, 0)
        try:
            own = kind.rpartition(".")[2] == ARRAY and (self.own_arrays or notes.get("axes") == "CHW")
            plane = array_plane(data) if own else self._decoded(data, f"{self.id(index)}.{kind}")
            full = notes.get("full")
            plane = attrs.evolve(
                plane,
                units=str(notes.get("units") or plane.units),
                full=(float(full[0]), float(full[1])) if full else plane.full,
            )
        except Exception as error:  # decoders raise whatever they stumble over
            raise DataError(f"{self.tar_of(index)[1]}: {self.id(index)}.{kind}: {error}") from None
        return Sample(str(notes.get("id") or self.id(index)), plane, notes)

    def _decoded(self, data: bytes, name: str) -> Plane:
        if self.reader is None:
            raise DataError("needs a reader; name one")
        stream = io.BytesIO(data)
        stream.name = name
        return self.reader.read(stream)

    def _notes(self, index: int) -> dict[str, Any]:
        if not self.place[index, 3]:
            return {}
        try:
            notes = json.loads(self._bytes(index, 2))
        except ValueError as error:
            raise DataError(f"{self.tar_of(index)[1]}: {self.id(index)}.json: is no JSON: {error}") from None
        return notes if isinstance(notes, dict) else {}

    def _bytes(self, index: int, which: int) -> bytes:
        """A file of a sample: 0 its image, 2 its `.json`."""
        number, tar = self.tar_of(index)
        begin, length = (int(value) for value in self.place[index, which : which + 2])
        try:
            data = os.pread(self._opened(number).fileno(), length, begin)
        except OSError as error:
            raise DataError(f"{tar}: cannot be read: {error.strerror or error}") from None
        if len(data) != length:
            raise DataError(f"{tar}: ends within {self.id(index)}; it was cut off since the run began")
        return data

    def _opened(self, number: int) -> IO[bytes]:
        """A tar, open. One that is put away is closed when nobody reads from it any more."""
        with self._lock:
            if number in self._open:
                self._open.move_to_end(number)
                return self._open[number]
        file = local(self.tars[number]).open("rb")
        size = os.fstat(file.fileno()).st_size
        if size != self.sizes[number]:
            file.close()
            raise DataError(
                f"{self.tars[number]}: has {size} bytes, and had {self.sizes[number]} when it was looked through; start again"
            )
        with self._lock:
            self._open[number] = file
            if len(self._open) > OPEN:
                self._open.popitem(last=False)
        return file


@attrs.frozen(eq=False)
class Part:
    """What one tar has: the samples with an image (`rows`), their images (`files`), and what is wrong with others."""

    index: TarIndex
    rows: np.ndarray
    files: np.ndarray
    faults: tuple[str, ...]

    @classmethod
    def of(cls, tar: str, index: TarIndex, endings: Sequence[str]) -> "Part":
        """The samples that have a file of one of the endings; () is any but `.json`."""
        endings = endings or tuple(kind for kind in index.kinds if kind != "json")
        try:
            files = index.files_of(endings)
        except DataError as error:
            raise DataError(f"{tar}: {error}", error.key) from None
        lost = np.flatnonzero(files < 0)
        wanted = ", ".join(f".{ending}" for ending in endings)
        faults = (
            f'{tar}: sample "{index.key(int(s))}" has no image: {index.endings(int(s))}, none of {wanted}' for s in lost
        )
        rows = np.flatnonzero(files >= 0)
        return cls(index, rows, files[rows], tuple(faults))

    @property
    def place(self) -> np.ndarray:
        """(n, 4): first byte and length of the image, and of the `.json` (0, 0 where there is none)."""
        notes = self.index.files_of(["json"])[self.rows]
        there = (notes >= 0).astype(np.int64)
        columns = (self.index.offset[self.files], self.index.length[self.files])
        return np.stack([*columns, self.index.offset[notes] * there, self.index.length[notes] * there], 1)

    def kinds(self, names: Sequence[str]) -> np.ndarray:
        """(n,) the numbers of the images' endings among `names`."""
        return np.array([names.index(kind) for kind in self.index.kinds], np.uint16)[self.index.kind[self.files]]

    def column(self, name: str) -> Column:
        """A column of the samples with an image."""
        column = self.index.columns[name]
        return Column(column.codes[self.rows], column.values)


def keys_of(parts: Sequence[Part]) -> tuple[np.ndarray, np.ndarray]:
    """Letters of all keys, and (N + 1,) where each begins."""
    letters: list[np.ndarray] = []
    lengths: list[np.ndarray] = [np.zeros(1, np.int64)]
    for part in parts:
        sizes = np.diff(part.index.ends, prepend=0)
        keep: np.ndarray = np.zeros(len(part.index), bool)
        keep[part.rows] = True
        letters.append(part.index.letters[np.repeat(keep, sizes)])
        lengths.append(sizes[part.rows])
    return np.concatenate(letters), np.cumsum(np.concatenate(lengths))


def digest_of(parts: Sequence[Part]) -> str:
    """Stands for the samples in their order: keys, and sizes of their images."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part.index.letters.tobytes() + part.index.length[part.files].tobytes() + part.rows.tobytes())
    return digest.hexdigest()


def tars_of(path: str | list[str]) -> list[str]:
    """The tars that the option means."""
    found = [tar for one in ([path] if isinstance(path, str) else path) for tar in listing(one, TARS)]
    if not found:
        raise DataError("names no tar; give a folder, a tar or a pattern", "path")
    if twice := [tar for tar, count in Counter(found).items() if count > 1]:
        raise DataError(f"names {twice[0]} more than once", "path")
    return found


def facts_of(tars: Sequence[str]) -> dict[str, Any]:
    """What `shards.json` says of the tars beside it, or nothing where there is none, or tars lie in several folders."""
    place = tars[0].removesuffix(tars[0].rpartition("/")[2]) + FACTS
    if len({tar.rpartition("/")[0] for tar in tars}) > 1 or not exists(place):
        return {}
    try:
        facts = json.loads(local(place).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{place}: cannot be read: {error}; pack again", "path") from None
    return facts if isinstance(facts, dict) else {}


def reader_of(options: Shards, packed: bool) -> tuple[PlaneReader | None, tuple[str, ...]]:
    """The reader, and the endings of images: the reader's and `.npy`, or in tars that were `packed` any, (). Raises DataError for a reader
    that reads paths only."""
    if options.reader is None:
        return None, (options.image.lower(),) if options.image else () if packed else (ARRAY,)
    component = options.reader.component
    if not component.streams:
        raise DataError(
            f'"{component.name}" reads files by their paths only, and samples of tars have none; name another reader, or put its '
            "images into tars with `dinomx data pack`",
            "reader",
        )
    endings = (*(suffix.removeprefix(".") for suffix in component.suffixes), ARRAY)
    if options.image:
        endings = (options.image.lower().removeprefix("."),)
    elif packed:
        endings = ()
    elif len(endings) == 1:
        raise DataError(
            f'missing: "{component.name}" does not say how its files end; give the ending of images', "image"
        )
    return construct(options.reader), tuple(dict.fromkeys(endings))


def array_plane(data: bytes) -> Plane:
    """A `.npy`: (H, W) or (C, H, W)."""
    pixels = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    if pixels.ndim not in (2, 3):
        raise DataError(f"has {pixels.ndim} dimensions; expected (rows, columns) or (channels, rows, columns)")
    return Plane(pixels[None] if pixels.ndim == 2 else pixels)


def look_at(samples: Samples) -> Look:
    """What some samples are like; of tars at URLs those of the first one, so that no more is fetched."""
    count = int(samples.starts[1]) if is_url(samples.tars[0]) else len(samples)
    given = samples.options.channels
    return look(lambda index: samples.read(index).plane, count, len(samples), given, samples.facts.get("channels", 0))
