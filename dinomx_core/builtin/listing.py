"""The files of an image folder, found by name alone and without torch."""

import os
from pathlib import Path

import attrs

from dinomx_core.errors import DataError

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"))


@attrs.frozen
class Listing:
    """Files below `root` in sorted order; `labels` are indices into `classes`, or -1."""

    root: Path
    files: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def list_images(path: str) -> Listing:
    """List a folder, sub-folders and links included. Raises DataError when there is nothing to train on."""
    root = Path(os.path.expanduser(path)).absolute()
    if not root.exists():
        raise DataError(f'there is no folder "{path}" (looked in {Path.cwd()})', "path")
    if not root.is_dir():
        raise DataError(f'"{path}" is a file; name the folder that holds the images', "path")
    found, others = [], 0
    visited = set()
    for directory, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(directory)
        if real in visited:  # a link that leads back up
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if os.path.splitext(name)[1].lower() in SUFFIXES:
                found.append(os.path.relpath(os.path.join(directory, name), root))
            elif not name.startswith("."):
                others += 1
    if not found:
        what = f"; {others} files of other kinds are there" if others else ""
        raise DataError(f'no images in "{path}" ({", ".join(sorted(SUFFIXES))}){what}', "path")
    found.sort()
    tops = [file.partition(os.sep)[0] if os.sep in file else "" for file in found]
    classes = sorted(set(tops) - {""}) if all(tops) else []
    notes = (f"{others} files of other kinds are left out",) if others else ()
    numbers = {name: number for number, name in enumerate(classes)}
    return Listing(root, tuple(found), tuple(numbers.get(top, -1) for top in tops), tuple(classes), notes)
