"""What a path holds: the [data] table that reads it."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from dinomx_core.builtin.listing import SUFFIXES
from dinomx_core.builtin.propose.columns import guess_columns, read_columns
from dinomx_core.builtin.propose.stacks import guess_stack
from dinomx_core.declare.discover import Registry
from dinomx_core.errors import DataError

# Endings that say which reader a file needs; the first that fits. DICOM files have any.
ENDINGS = {
    "nifti": (".nii", ".nii.gz", ".mgh", ".mgz"), "ome-zarr": (".zarr",), "tiff": (".tif", ".tiff", ".btf"),
    "dicom": (".dcm", ".dicom", ".ima"), "image": (*SUFFIXES, ".npy"),
}  # fmt: skip
SAVED = ("state.json", "dataset_dict.json")
PATIENT = re.compile(r"(?i)(?:patient|subject|sub|pat|case|id|p)[-_ ]?\d+|\d{3,}")
GROUP = "(?i)(?:patient|subject|sub|case)[-_]?[0-9]+"
PARTS = (("train",), ("test", "val", "valid", "validation"))
KINDS = (
    "a folder of images, a manifest (.csv, .jsonl, .parquet), tars, a MedMNIST .npz or a Hugging Face data set on disk"
)
PACKAGE = "dinomx-medical-multichannel"


@attrs.frozen
class Found:
    """What reads the images. table: of [data]. held: what to change in it for the part that is trained on and the part that is held out;
    (): no such parts. files: their names, where they are files. notes: what a person should know or decide."""

    table: dict[str, Any]
    held: tuple[dict[str, Any], ...] = ()
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def reader(self) -> str:
        """Name of the reader."""
        return self.table.get("reader", {}).get("name", "image")


def find(path: str, registry: Registry) -> Found:
    """Raises DataError, which says what is there instead, where nothing can be read."""
    place = Path(path).expanduser()
    if "://" in path or any(mark in path for mark in "*{"):
        return Found({"name": "shards", "path": path})
    if not place.exists():
        raise DataError(f'there is no file or folder "{path}" (looked in {Path.cwd()})')
    if place.is_dir():
        names = sorted(entry.name for entry in place.iterdir())
        if set(SAVED) & set(names) or any(name.endswith((".arrow", ".parquet")) for name in names):
            return Found({"name": "hf-dataset", "path": path})
        if any(name.endswith(".tar") for name in names):
            return Found({"name": "shards", "path": path})
        return in_folder(path, place, registry)
    ending = place.suffix.lower()
    if ending == ".npz":
        return Found({"name": "medmnist", "path": path}, ({"split": "train"}, {"split": "test"}))
    if ending == ".tar":
        return Found({"name": "shards", "path": path})
    if ending in (".csv", ".jsonl", ".parquet"):
        return in_manifest(path, place, registry)
    raise DataError(f'"{path}" is a single file; name {KINDS}')


def in_manifest(path: str, file: Path, registry: Registry) -> Found:
    """A manifest with the columns that its names tell."""
    columns = read_columns(file)
    options, notes = guess_columns(file, columns)
    files = [str(value) for value in columns[options.get("columns", ["path"])[0]]]
    reader = reader_of(Counter(kind_of(file.parent / name) for name in files[:1000]), path, registry)
    if "label" in options and "group" not in options:
        notes.append(
            "no column names patients or other groups: if images belong together, set data.group, or the held-out part is too easy"
        )
    table = {"name": "manifest", "path": path, **options, **read_by(reader)}
    return Found(table, ({"part": "train"}, {"part": "test"}), tuple(files), tuple(notes))


def in_folder(path: str, root: Path, registry: Registry) -> Found:
    """A folder of files, with what their names tell of classes, groups and channels."""
    files, kinds = listed(root)
    reader = reader_of(kinds, path, registry)
    own = [
        name for name, kind in files if kind == reader or (reader in ("image", "tiff") and kind in ("image", "tiff"))
    ]
    notes = [f"{len(files) - len(own)} files that are no {reader} images are left out"] if len(own) < len(files) else []
    notes += [
        f"{name} lies there, too: if it lists these images, use `dinomx init {Path(path) / name}`"
        for name in manifests(root)
    ]
    table: dict[str, Any] = {"name": "image-folder", "path": path, **read_by(reader)}
    tops = sorted({name.split(os.sep)[0] for name in own}) if all(os.sep in name for name in own) else []
    parts = [next((name for name in names if name in tops), "") for names in PARTS]
    if all(parts):
        train, test = ({"path": str(Path(path) / part)} for part in parts)
        return Found({**table, **train}, (train, test), tuple(own), tuple(notes))
    if tops and all(PATIENT.fullmatch(name) for name in tops):
        table |= {"labels": "none", "group": "^[^/]+"}
        notes.append(
            f"the {len(tops)} sub-folders look like patients, not classes; take labels and group out if they are classes"
        )
    elif own and all(re.search(GROUP, name) for name in own):
        table["group"] = GROUP
    stack = guess_stack(own)
    if stack.patterns:
        table["stack"] = list(stack.patterns)
    notes += [stack.note] if stack.note else []
    return Found(table, ({"part": "train"}, {"part": "test"}), tuple(own), tuple(notes))


def listed(root: Path) -> tuple[list[tuple[str, str]], "Counter[str]"]:
    """Names below a folder with the reader that each needs ("" for none), and how many there are of each."""
    files = []
    for directory, folders, names in os.walk(root, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        whole = [name for name in folders if name.lower().endswith(ENDINGS["ome-zarr"])]
        folders[:] = sorted(set(folders) - set(whole))
        for name in (*whole, *names):
            if not name.startswith("."):
                place = Path(directory) / name
                files.append((str(place.relative_to(root)), kind_of(place)))
    files.sort()
    return files, Counter(kind for _, kind in files)


def kind_of(file: Path) -> str:
    """The reader that a file needs, by its ending, or by how it begins where that says nothing; "" for none."""
    lower = file.name.lower()
    for kind, endings in ENDINGS.items():
        if lower.endswith(endings):
            return kind
    if not file.suffix or file.suffix[1:].isdigit():  # DICOM files are often called by numbers
        try:
            with file.open("rb") as opened:
                return "dicom" if opened.read(132)[128:] == b"DICM" else ""
        except OSError:
            return ""
    return ""


def reader_of(kinds: "Counter[str]", path: str, registry: Registry) -> str:
    """The reader of most files. Raises DataError where no file is an image, or the reader is not installed."""
    known = Counter({kind: count for kind, count in kinds.items() if kind})
    if not known:
        others = f"; {kinds['']} files of other kinds are there" if kinds[""] else "; it is empty"
        raise DataError(f'no images in "{path}"{others}; name {KINDS}')
    reader = known.most_common(1)[0][0]
    if reader in registry.names("reader"):
        return reader
    if reader == "tiff":
        return "image"  # reads the plain ones
    raise DataError(f'the {known[reader]} images in "{path}" need the reader "{reader}": pip install {PACKAGE}')


def read_by(reader: str) -> dict[str, Any]:
    """The reader's table, where it is not the default one."""
    if reader == "image":
        return {}
    return {"reader": {"name": reader, **({"skip_empty": 0.05} if reader == "nifti" else {})}}


def manifests(root: Path) -> Sequence[str]:
    """Names of manifests that lie in a folder."""
    return sorted(entry.name for entry in root.iterdir() if entry.suffix.lower() in (".csv", ".jsonl"))
