"""A reader of files of a format of its own, and one that reads paths only, for tests."""

from pathlib import Path

import attrs
import numpy as np

from dinomx_core import DataError, Plane, PlaneReader, Reader, hookimpl


@attrs.frozen
class Flat:
    """NumPy's format under another name."""


class FlatReader(PlaneReader):
    """Units are "HU", and numbers may lie between -1024 and 3071."""

    def __init__(self, options):
        pass

    def decode(self, file, frame):
        try:
            pixels = np.load(file)
        except ValueError:
            raise DataError("is not flat; write it again") from None
        return Plane(pixels if pixels.ndim == 3 else pixels[None], "HU", (-1024.0, 3071.0))


def write(place, pixels):
    """Write pixels as a flat file."""
    with Path(place).open("wb") as file:
        np.save(file, pixels)


@hookimpl
def dinomx_readers():
    yield Reader("flat", Flat, "tests.flat_files:FlatReader", suffixes=(".flat", ".flat.gz"))
    yield Reader("paths", Flat, "tests.flat_files:FlatReader", suffixes=(".flat",), streams=False)
    yield Reader("endless", Flat, "tests.flat_files:FlatReader", suffixes=())
