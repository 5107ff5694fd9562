"""What TIFF files hold, from their directories alone."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from dinomx_core.declare.reading import Index, Stack
from dinomx_core.errors import DataError
from dinomx_medical_multichannel.axes import check_channels
from dinomx_medical_multichannel.tiff import open_tiff, told

if TYPE_CHECKING:
    from dinomx_medical_multichannel.plugin import Tiff

AT_ONCE = 8  # files that are looked at side by side: on a network each is a wait


@attrs.frozen
class Found:
    """What a file holds: its stacks, none where it is a part of an image that begins in another file, and how many series."""

    stacks: list[Stack]
    series: int


def index(options: Tiff, files: Sequence[Path]) -> Index:
    """A stack of planes a file, or several where it has planes along several axes."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(lambda number: look(options, number, files[number]), range(len(files))))
    read = [one for one in found if isinstance(one, Found)]
    faults = [f"{file.name}: {one}" for file, one in zip(files, found) if isinstance(one, str)]
    several, parts = sum(one.series > 1 for one in read), sum(not one.stacks for one in read)
    notes = []
    if several:
        notes.append(f"{several} files hold several series, of which series = {options.series} is read")
    if parts:
        notes.append(f"{parts} files are parts of images that begin in other files, and are read with those")
    return Index(tuple(stack for one in read for stack in one.stacks), tuple(faults), tuple(notes))


def look(options: Tiff, number: int, file: Path) -> Found | str:
    """A file's stacks and how many series it has; or what is wrong with it."""
    try:
        opened = open_tiff(file, options)
        opened.tiff.close()
        check_channels(opened.layout.channels, options.channels)
        first = opened.series.pages[0]
        part = first is not None and first.parent is not opened.tiff  # of an OME-TIFF of several files
        return Found([] if part else opened.layout.stacks(number, file.name), len(opened.tiff.series))
    except DataError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    except Exception as error:  # tifffile raises whatever it stumbles over
        return told(error)
