"""Writes any data set into tars of samples (`shards` reads them). A crash leaves whole tars or drafts, and the next call goes on."""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from dinomx_core.builtin.tar_index import indexed
from dinomx_core.builtin.tar_samples import FACTS
from dinomx_core.declare.facts import DataInfo
from dinomx_core.errors import DataError
from dinomx_core.folders import sync

if TYPE_CHECKING:
    from dinomx_core.training.contracts import Dataset
    from dinomx_core.training.flow import Item, Label

FORMAT = "dinomx shards 1"
DRAFT = f"{FACTS}.draft"  # what was written so far
COLUMNS = ("cls", "label", "group")  # that readers ask for
Progress = Callable[[int, int], None]


class Items(Protocol):
    """Items by number, such as a list or a data set; `source(index)`, where there is one, gives the file whose bytes alone, read again,
    make the item, or None."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> "Item": ...


def nobody(done: int, total: int) -> None:
    """Watches nothing."""


def pack(dataset: "Dataset", info: DataInfo, out: Path, shard_size: int, progress: Progress = nobody) -> dict[str, Any]:
    """Write a data set into a folder of tars with `shard_size` samples each; see `write_shards`."""
    facts: dict[str, Any] = {"channels": info.channels, "names": info.names, "source": info.digest}
    if info.label_kind != "class":
        facts["label_kind"] = info.label_kind
    return write_shards(dataset, out, shard_size, info.classes, facts, progress)


def write_shards(
    items: Items,
    out: Path,
    per_shard: int = 1000,
    classes: Sequence[str] = (),
    facts: dict[str, Any] | None = None,
    progress: Progress = nobody,
) -> dict[str, Any]:
    """Write items into `out`/000000.tar, ... and `shards.json`, whose contents are returned: `facts`, and of each tar its samples,
    bytes, SHA-256 and the items that could not be read, which are left out. `progress` is told (done, total). A folder that was begun
    with the same items is gone on with. Raises DataError where it holds something else, cannot be written to, or no item can be read."""
    if per_shard < 1:
        raise DataError(f"samples of a tar must be 1 or more, got {per_shard}")
    plan = {
        "format": FORMAT,
        "count": len(items),
        "per_shard": per_shard,
        "classes": list(classes),
        **json.loads(json.dumps(facts or {})),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        done = begun(out, plan)
        tars = done.setdefault("tars", [])
        for number in range(len(tars), -(-len(items) // per_shard)):
            chosen = range(number * per_shard, min((number + 1) * per_shard, len(items)))
            tars.append(write_tar(items, chosen, out / f"{number:06}.tar", classes, progress))
            write_text(out / DRAFT, json.dumps(done))
        if tars and not any(tar["samples"] for tar in tars):
            raise DataError(f"no item can be read; the first: {tars[0]['left_out'][0]}")
        if not (out / FACTS).exists():
            write_text(out / FACTS, json.dumps(done, indent=1) + "\n")
            (out / DRAFT).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror or error}") from None
    progress(len(items), len(items))
    return done


def begun(out: Path, plan: dict[str, Any]) -> dict[str, Any]:
    """What was written of the plan so far. Raises DataError where the folder holds something else."""
    for name in (FACTS, DRAFT):
        try:
            found = json.loads((out / name).read_text("utf-8"))
        except FileNotFoundError:
            continue
        except ValueError:
            found = {}
        if {key: found.get(key) for key in plan} == plan:
            return found
        raise DataError(
            f"{out}: holds shards of other data, or of another size ({name}); choose another folder, or remove it"
        )
    if list(out.glob("*.tar")):
        raise DataError(f"{out}: holds tars, but no {FACTS}; choose another folder")
    write_text(out / DRAFT, json.dumps(plan))
    return dict(plan)


def write_tar(items: Items, chosen: range, place: Path, classes: Sequence[str], progress: Progress) -> dict[str, Any]:
    """One tar, whole or not at all, with its index beside it; what is known of it is handed back."""
    draft = place.with_name(f".{place.name}.draft")
    samples = 0
    faults: list[str] = []
    with tarfile.open(draft, "w", format=tarfile.PAX_FORMAT) as archive:
        for index in chosen:
            try:
                files = files_of(items, index, classes)
            except DataError as error:
                faults.append(str(error))
                continue
            for ending, data in files:
                add(archive, f"{index:09}.{ending}", data)
            samples += 1
            progress(index + 1, len(items))
    record = {"name": place.name, "samples": samples, "left_out": faults}
    if not samples:  # no tar then: one without samples means a fault elsewhere
        draft.unlink()
        return record
    with draft.open("rb") as file:
        record["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    record["bytes"] = draft.stat().st_size
    sync(draft)
    os.replace(draft, place)
    sync(place.parent)
    indexed(str(place), COLUMNS)
    return record


def files_of(items: Items, index: int, classes: Sequence[str]) -> list[tuple[str, bytes]]:
    """Ending and bytes of a sample's files. Raises DataError for an item that cannot be read."""
    item = items[index]
    source = getattr(items, "source", lambda index: None)(index)
    notes: dict[str, Any] = {"id": item.id, "group": item.group, "units": item.units}
    notes = {name: value for name, value in notes.items() if value}
    if item.label is not None:
        notes["label"] = label_named(item.label, classes)
    if item.full is not None:
        notes["full"] = list(item.full)
    if item.channels is not None:
        notes["channels"] = list(item.channels)
    if source is None:
        notes["axes"] = "CHW"
        stream = io.BytesIO()
        np.save(stream, np.ascontiguousarray(item.image.numpy()), allow_pickle=False)
        image = ("npy", stream.getvalue())
    else:
        image = (ending_of(Path(source)), bytes_of(Path(source)))
    return [image, ("json", json.dumps(notes).encode())]


def label_named(label: "Label", classes: Sequence[str]) -> Any:
    """A label with the names of classes, where they have any."""
    if isinstance(label, tuple):
        return [classes[one] if classes else one for one in label]
    return classes[label] if classes and isinstance(label, int) else label


def bytes_of(file: Path) -> bytes:
    """A file's bytes. Raises DataError where it cannot be read: the fault is not the folder's that is written to."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from None


def ending_of(file: Path) -> str:
    """How a file's name ends, a compression's ending included: "nii.gz"."""
    last = file.suffix.lower()
    return (Path(file.stem).suffix.lower() + last if last in (".gz", ".bz2", ".xz") else last).removeprefix(
        "."
    ) or "bin"


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file; all that depends on when and by whom is left out, so that the same items make the same tar."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o644
    archive.addfile(entry, io.BytesIO(data))


def write_text(place: Path, text: str) -> None:
    """Write a small file, whole or not at all."""
    draft = place.with_name(f".{place.name}.new")
    draft.write_text(text, "utf-8")
    sync(draft)
    os.replace(draft, place)
    sync(place.parent)
