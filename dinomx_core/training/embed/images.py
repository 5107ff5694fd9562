"""The images to embed: those below a folder, or the rows of a manifest. No image is opened, and torch is not needed."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from dinomx_core.builtin.listing import list_images
from dinomx_core.builtin.manifest import READERS, Manifest, check_files, is_manifest, named, numbered, read_manifest
from dinomx_core.errors import DataError

ID, LABEL, EMBEDDING, COUNT = "id", "label", "embedding", "count"
PLURALS = {ID: "ids", LABEL: "labels", EMBEDDING: "embeddings", COUNT: "counts"}  # their names in a .npz file


@attrs.frozen
class Images:
    """Images in their order. files: below `root`, or absolute. ids: the same as texts. labels: class names, "" where there are none.
    columns: further ones by name. digest: stands for all of it."""

    root: Path
    files: Sequence[str]
    ids: Sequence[str]
    labels: Sequence[str]
    columns: Mapping[str, Any]
    digest: str
    manifest: Manifest | None

    def __len__(self) -> int:
        return len(self.files)

    @property
    def groups(self) -> dict[str, Any]:
        """Columns by which embeddings may be pooled: a manifest's, or a folder's classes."""
        if self.manifest:
            return dict(self.columns)
        return {LABEL: list(self.labels)} if any(self.labels) else {}

    def table(self) -> dict[str, Any]:
        """All columns that stand beside the embeddings; a manifest's own labels take the empty ones' place."""
        return {ID: list(self.ids), LABEL: list(self.labels), **self.columns}

    def check_files(self) -> None:
        """Raise DataError where a manifest names files that are not there."""
        if self.manifest:
            check_files(self.manifest)


def find_images(data: Path, path_column: str) -> Images:
    """What a path means: a manifest (.csv, .jsonl, .parquet) or a folder. Raises DataError when there is nothing to read."""
    if is_manifest(data):
        manifest = read_manifest(data, path_column or "path")
        paths = manifest.paths
        return Images(
            manifest.file.parent, paths, paths, ("",) * len(paths), manifest.columns, manifest.digest, manifest
        )
    if data.is_file():
        kinds = ", ".join(READERS)
        raise DataError(f'"{data}" is a file of another kind; name a folder of images or a manifest ({kinds})', "path")
    if path_column:
        raise DataError(f'"{data}" is a folder, and --path-column is of manifests; leave it out', "path_column")
    listing = list_images(str(data))
    labels = tuple("" if label < 0 else listing.classes[label] for label in listing.labels)
    ids = tuple(as_text(file) for file in listing.files)
    return Images(listing.root, listing.files, ids, labels, {}, listing.digest, None)


def as_text(name: str) -> str:
    """A file's name as UTF-8 takes it, which not every name is."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


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
    return str(images.manifest.file if images.manifest else images.root)
