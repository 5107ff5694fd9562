"""Planes of files as images: each stack's, with their neighbours; a column's beside another's. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from dinomx_core.builtin.index_cache import index_of
from dinomx_core.declare.reading import Index, Stack, one_plane_each
from dinomx_core.errors import DataError

if TYPE_CHECKING:
    import numpy as np


def stacks_of(options: Any, files: Sequence[Path]) -> Index:
    """What a data set's reader finds in files. Raises DataError, with the option's name, where it finds nothing."""
    component = options.reader.component
    if component.index is None:
        return one_plane_each(files)
    found = index_of(component, options.reader.options, files)
    if not found.stacks:
        first = f"; the first: {found.faults[0]}" if found.faults else ""
        raise DataError(f'the reader "{component.name}" finds no image in {len(files)} files{first}', "path")
    return found


def images_of(stack: Stack, neighbours: int) -> Iterator[list[tuple[int, int]]]:
    """The planes of each image of a stack: its own, with so many before and after it; at the ends the last one again."""
    last = len(stack.planes) - 1
    for position in range(last + 1) if stack.used is None else stack.used:
        yield [
            stack.planes[min(max(position + n, 0), last)] for n in range(-neighbours, neighbours + 1)
        ]  # fmt: skip


@attrs.frozen(eq=False)
class Arranged:
    """Images made of stacks: planes (images, K, 2), and the group that each image's stack says."""

    planes: np.ndarray
    groups: tuple[str, ...]
    faults: tuple[str, ...]
    notes: tuple[str, ...]


def arrange(options: Any, columns: Sequence[Sequence[Path]]) -> Arranged:
    """Images of files that are listed in one column a channel; in rows where there are several, of which a file each makes an image, or a
    volume each makes one image a slice. Files are numbered column after column. Raises DataError where columns do not fit each other."""
    import numpy as np

    if len(columns) == 1 and options.reader.component.index is None:
        numbers: Any = np.arange(len(columns[0]), dtype=np.int32)
        planes = np.stack([numbers, np.zeros_like(numbers)], 1)[:, None]
        return Arranged(planes.repeat(2 * options.neighbours + 1, 1), (), (), ())
    found = [Column.of(options, files) for files in columns]
    faults = tuple(fault for column in found for fault in column.index.faults)
    notes = tuple(dict.fromkeys(note for column in found for note in column.index.notes))
    width = len(columns) * (2 * options.neighbours + 1)
    if len(columns) == 1:
        chosen = [image for image in found[0].images if image.used]
        return Arranged(_as_array([i.planes for i in chosen], width), tuple(i.group for i in chosen), faults, notes)
    by_row = [column.by_row() for column in found]
    images: list[list[tuple[int, int]]] = []
    groups: list[str] = []
    for row in range(len(columns[0])):
        rows = [of_column.get(row, []) for of_column in by_row]
        sizes = [len(channel) for channel in rows]
        if not all(sizes):
            continue  # one of its files is among the faults
        if len(set(sizes)) > 1:
            name = columns[sizes.index(max(sizes))][row]
            raise DataError(f"{name}: has {max(sizes)} planes, another channel of the same image {min(sizes)}", "path")
        for image in zip(*rows):
            if image[0].used:
                offsets = range(0, len(columns) * len(columns[0]), len(columns[0]))
                images.append([(file + n, frame) for n, i in zip(offsets, image) for file, frame in i.planes])
                groups.append(image[0].group)
    return Arranged(_as_array(images, width), tuple(groups), faults, notes)


@attrs.frozen
class OfRow:
    """A plane of a row's file, with its neighbours. used: whether it is an image of its own."""

    row: int
    planes: list[tuple[int, int]]
    used: bool
    group: str


@attrs.frozen
class Column:
    """What the files of a column hold, in the order of their stacks; a file that several rows name is looked at once, and is each row's."""

    index: Index
    images: list[OfRow]

    @classmethod
    def of(cls, options: Any, files: Sequence[Path]) -> Column:
        """Raises DataError where the reader finds nothing."""
        rows: dict[Path, list[int]] = {}
        for row, file in enumerate(files):
            rows.setdefault(file, []).append(row)
        named = list(rows.values())
        index = stacks_of(options, list(rows))
        images = []
        for stack in index.stacks:
            used = None if stack.used is None else set(stack.used)
            every = images_of(attrs.evolve(stack, used=None), options.neighbours)
            for position, planes in enumerate(every):
                file = planes[options.neighbours][0]
                for row in named[file]:
                    own = [(row if number == file else named[number][0], frame) for number, frame in planes]
                    images.append(OfRow(row, own, used is None or position in used, stack.group))
        return cls(index, images)

    def by_row(self) -> dict[int, list[OfRow]]:
        """The planes of each row's file."""
        found: dict[int, list[OfRow]] = {}
        for image in self.images:
            found.setdefault(image.row, []).append(image)
        return found


def _as_array(images: list[list[tuple[int, int]]], width: int) -> np.ndarray:
    import numpy as np

    return np.array(images, np.int32).reshape(len(images), width, 2)
