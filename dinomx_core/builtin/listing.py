"""The files of an image folder, found by name alone and without torch."""

import hashlib
import os
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import attrs

from dinomx_core.errors import DataError

SHOWN = 5  # names in a message
SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"))


@attrs.frozen
class Listing:
    """Files below `root` in sorted order; `labels` are indices into `classes`, or -1."""

    root: Path
    files: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Stands for the names of all files in their order."""
        return hashlib.blake2b("\n".join(self.files).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def list_images(path: str, suffixes: Collection[str] = SUFFIXES, whole_folders: bool = False) -> Listing:
    """List a folder, sub-folders and links included. suffixes: endings of names in lower case; none: any file. whole_folders: a sub-folder
    of such a name is one of the files. Raises DataError when there is nothing to train on."""
    root = Path(os.path.expanduser(path)).absolute()
    if not root.exists():
        raise DataError(f'there is no folder "{path}" (looked in {Path.cwd()})', "path")
    if not root.is_dir():
        raise DataError(f'"{path}" is a file; name the folder that holds the images', "path")
    endings = tuple(suffixes)
    found, others = [], 0
    above: dict[str, frozenset[str]] = {}
    unread: list[str] = []
    for directory, folders, names in os.walk(root, followlinks=True, onerror=lambda e: unread.append(str(e.filename))):
        real = os.path.realpath(directory)
        higher = above.get(os.path.dirname(directory), frozenset()) if directory != str(root) else frozenset()
        if real in higher:  # a link that leads back up
            folders.clear()
            continue
        above[directory] = higher | {real}
        below = "" if directory == str(root) else directory[len(str(root)) + 1 :] + os.sep
        if whole_folders:
            found += [below + name for name in folders if name.lower().endswith(endings)]
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and not (whole_folders and name.lower().endswith(endings))
        )
        for name in names:
            if name.startswith("."):  # among them the "._" companions that macOS leaves on other file systems
                continue
            if not whole_folders and (not endings or name.lower().endswith(endings)):
                found.append(below + name)
            else:
                others += 1
    if not found:
        what = f"; {others} files of other kinds are there" if others else ""
        raise DataError(f'no images in "{path}" ({", ".join(sorted(suffixes)) or "files of any name"}){what}', "path")
    found.sort()
    tops = [file.partition(os.sep)[0] if os.sep in file else "" for file in found]
    classes = sorted(set(tops) - {""}) if all(tops) else []
    notes = [f"{others} files of other kinds are left out"] if others else []
    if not all(tops) and any(tops):
        beside = sum(not top for top in tops)
        notes.append(f"{beside} images lie beside the sub-folders, so these are not classes and nothing has a label")
    if unread:
        notes.append(f"{len(unread)} sub-folders cannot be read and are left out: {', '.join(unread[:SHOWN])}")
    single = [name for name, count in Counter(tops).items() if count == 1] if classes else []
    if single:
        notes.append(
            f"{len(single)} of {len(classes)} classes have one image only: {', '.join(sorted(single)[:SHOWN])}"
        )
    numbers = {name: number for number, name in enumerate(classes)}
    return Listing(root, tuple(found), tuple(numbers.get(top, -1) for top in tops), tuple(classes), tuple(notes))
