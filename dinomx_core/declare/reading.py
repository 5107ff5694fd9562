"""How files become planes of pixels: what a reader finds in files, and what it reads. NumPy arrays, no torch, so that the plan can look."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    import numpy as np

Region = tuple[int, int, int, int]  # top, left, height, width in pixels


@attrs.frozen
class Stack:
    """Planes in their order, side by side in space or time: the slices of a volume, a series, the pages of a file.

    planes: (number of the file, frame in it). used: which of them are images of their own; None: all. The others are neighbours only.
    id: what the stack is called; "": as its file. group: what it belongs to as a whole, such as a patient; "" where that is not known.
    """

    planes: tuple[tuple[int, int], ...]
    used: tuple[int, ...] | None = None
    id: str = ""
    group: str = ""


@attrs.frozen
class Index:
    """What files hold. faults: files that are left out, each with its reason ("name: why"). notes: what a person should know."""

    stacks: tuple[Stack, ...]
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@attrs.frozen(eq=False)
class Plane:
    """One plane of pixels, as the file has it.

    pixels: (C, H, W) of any number type. units: of the numbers, such as "HU"; "" where they have none. full: the range that the numbers
    can have, where the file says so (0..4095 of 12 bits). spacing: (row, column) millimetres of a pixel, where known.
    """

    pixels: np.ndarray
    units: str = ""
    full: tuple[float, float] | None = None
    spacing: tuple[float, float] | None = None


class PlaneReader(ABC):
    """Decodes files of some formats. What it keeps between calls is bounded, may be asked for by several threads, and survives being
    copied to a worker."""

    @abstractmethod
    def decode(self, file: Path | IO[bytes], frame: int) -> Plane:
        """One frame of a file, whole. Raises DataError, which names what is wrong and how it is mended, when it cannot be decoded; the
        caller names the file."""

    def read(self, file: Path | IO[bytes], frame: int = 0, region: Region | None = None) -> Plane:
        """The same, or a region of it; a reader that can decode less for it does."""
        return cut(self.decode(file, frame), region)

    def read_mask(self, file: Path | IO[bytes], frame: int = 0, region: Region | None = None) -> Plane:
        """The same of a file that is a mask: truth values are 0 and 1; a reader of pictures gives the numbers of an indexed one, not the
        colours that these stand for."""
        plane = self.read(file, frame, region)
        return attrs.evolve(plane, pixels=plane.pixels.astype("uint8")) if plane.pixels.dtype == bool else plane


def cut(plane: Plane, region: Region | None) -> Plane:
    """A region of a plane; None: all of it."""
    if region is None:
        return plane
    top, left, height, width = region
    return attrs.evolve(plane, pixels=plane.pixels[:, top : top + height, left : left + width])


@attrs.frozen
class Sampled:
    """What some of the pixels of a data set were like: number type ("uint16"), smallest and largest value, units, and the range that the
    files say the numbers can have."""

    kind: str
    low: float
    high: float
    units: str = ""
    full: tuple[float, float] | None = None


def one_plane_each(files: Sequence[Path]) -> Index:
    """The index of files that hold one plane each."""
    return Index(tuple(Stack(((number, 0),)) for number in range(len(files))))
