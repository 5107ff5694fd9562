"""The images to embed: those below a folder, or the rows of a manifest. No image is opened, and torch is not needed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from dinomx_core.builtin.arrange import arrange
from dinomx_core.builtin.manifest import (
    READERS,
    Manifest,
    check_files,
    is_manifest,
    named,
    numbered,
    plain,
    read_manifest,
)
from dinomx_core.builtin.picture_options import ImageFolder
from dinomx_core.builtin.picture_sets import find_folder, texts
from dinomx_core.builtin.pictures import Pictures, as_text
from dinomx_core.errors import DataError
from dinomx_core.planning.origin import Reading

ID, LABEL, GROUP, EMBEDDING, COUNT = "id", "label", "group", "embedding", "count"
PLURALS = {ID: "ids", LABEL: "labels", EMBEDDING: "embeddings", COUNT: "counts"}  # their names in a .npz file


@attrs.frozen
class Images:
    """Images in their order. ids: names as texts. labels: class names, "" where there are none. columns: further ones by name.
    digest: stands for all of it."""

    pictures: Pictures
    ids: Sequence[str]
    labels: Sequence[str]
    columns: Mapping[str, Any]
    digest: str
    manifest: Manifest | None

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def groups(self) -> dict[str, Any]:
        """Columns by which embeddings may be pooled: a manifest's, or a folder's classes, or what the files say images belong to."""
        if self.manifest:
            return dict(self.columns)
        found: dict[str, Any] = {LABEL: list(self.labels)} if any(self.labels) else {}
        if self.pictures.groups:
            found[GROUP] = [self.pictures.group(image) or None for image in range(len(self))]
        return found

    def table(self) -> dict[str, Any]:
        """All columns that stand beside the embeddings; a manifest's own labels take the empty ones' place."""
        return {ID: list(self.ids), LABEL: list(self.labels), **self.columns}

    def check_files(self) -> None:
        """Raise DataError where a manifest names files that are not there."""
        if self.manifest:
            check_files(self.manifest)


def find_images(data: Path, path_column: str, reading: Reading) -> Images:
    """What a path means: a manifest (.csv, .jsonl, .parquet) or a folder, whose files become images as told. Raises DataError when there is
    nothing to read."""
    if is_manifest(data):
        if reading.columns and path_column:
            raise DataError(
                f"the model's images are files of the columns {named(reading.columns)}; leave it out",
                "path_column",
            )
        return in_manifest(read_manifest(data, path_column or (reading.columns or ("path",))[0]), reading)
    if data.is_file():
        kinds = ", ".join(READERS)
        raise DataError(f'"{data}" is a file of another kind; name a folder of images or a manifest ({kinds})', "path")
    if path_column:
        raise DataError(f'"{data}" is a folder, and --path-column is of manifests; leave it out', "path_column")
    if reading.columns:
        raise DataError(
            f'"{data}" is a folder, and the model\'s images are files of several columns; give a manifest with {named(reading.columns)}',
            "path",
        )
    folder = ImageFolder(
        path=str(data), reader=reading.reader, neighbours=reading.neighbours, stack=list(reading.stack)
    )
    pictures = find_folder(folder)
    labels = tuple("" if label < 0 else pictures.classes[label] for label in pictures.labels.tolist())
    ids = tuple(as_text(pictures.id(image)) for image in range(len(pictures)))
    return Images(pictures, ids, labels, {}, pictures.digest, None)


def in_manifest(manifest: Manifest, reading: Reading) -> Images:
    """The images of a manifest's rows: one each, or all that a row's file holds, each with the row's columns."""
    if reading.stack:
        raise DataError(
            f"the model's images are files told apart by {named(reading.stack)}; give the folder that holds them",
            "path",
        )
    paths = [manifest.paths, *(texts(manifest, name, "path") for name in reading.columns[1:])]
    root, files, rows = manifest.file.parent, tuple(path for column in paths for path in column), len(manifest.paths)
    options = ImageFolder(path="", reader=reading.reader, neighbours=reading.neighbours)
    arranged = arrange(options, [[root / file for file in column] for column in paths])
    row: Any = arranged.planes[:, reading.neighbours, 0] % rows
    none: Any = np.full(len(row), -1, np.int32)
    pictures = Pictures(
        root, files, arranged.planes, none, (), none, (), faults=arranged.faults, own=reading.neighbours
    )
    columns = manifest.columns
    if reading.reader.component.index is not None:
        columns = {name: [values[n] for n in row.tolist()] for name, values in
                   ((name, plain(column)) for name, column in columns.items())}  # fmt: skip
    ids = tuple(pictures.id(image) for image in range(len(pictures)))
    return Images(pictures, ids, ("",) * len(ids), columns, manifest.digest, manifest)


def check_columns(images: Images, pool: str, npz: bool) -> None:
    """Raise DataError for columns whose names the output has itself, and for a column to pool by that is none or misses values."""
    ours = [ID, EMBEDDING, *([COUNT] if pool else [])]
    if npz:
        ours += [PLURALS[name] for name in (*ours, LABEL)]
    if clash := [name for name in images.columns if name in ours]:
        raise DataError(
            f"{where(images)}: the output has columns {named(ours)} of its own; rename {named(clash)} in the manifest",
            "path",
        )
    if not pool:
        return
    if pool not in images.groups:
        raise DataError(f'pool: {where(images)} has no column "{pool}" to pool by; there are: {named(images.groups)}')
    if images.manifest and (missing := [row for row, n in enumerate(numbered(images.groups[pool])) if n < 0]):
        raise DataError(
            f'pool: {where(images)}: column "{pool}" is empty in {images.manifest.where(missing)}; give these a value of '
            "their own, or leave them out of the manifest"
        )


def where(images: Images) -> str:
    """What messages call them."""
    return str(images.manifest.file if images.manifest else images.pictures.root)
