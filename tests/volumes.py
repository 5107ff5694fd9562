"""A reader of files that hold several planes, for tests: rows of numbers, a plane each."""

import attrs
import numpy as np

from dinomx_core import DataError, Index, Plane, PlaneReader, Reader, Stack, hookimpl, option

SIDE = 12


@attrs.frozen
class Volume:
    """Planes of one number each."""

    skip: bool = option(False, "leave out planes of zeros")


class VolumeReader(PlaneReader):
    """Planes of uint8."""

    def __init__(self, options):
        pass

    def decode(self, file, frame):
        return Plane(np.full((1, SIDE, SIDE), numbers(file)[frame], np.uint8))


def numbers(file):
    """The number of each plane."""
    try:
        return [int(word) for word in file.read_text().split(",")]
    except ValueError:
        raise DataError("is no volume") from None


def index(options, files):
    """A stack a file."""
    stacks, faults = [], []
    for number, file in enumerate(files):
        try:
            found = numbers(file)
        except DataError as error:
            faults.append(f"{file.name}: {error}")
            continue
        used = tuple(n for n, value in enumerate(found) if value) if options.skip else None
        stacks.append(Stack(tuple((number, frame) for frame in range(len(found))), used))
    return Index(tuple(stacks), tuple(faults))


def write(file, values):
    """Write planes of these numbers."""
    file.write_text(",".join(map(str, values)))


@hookimpl
def dinomx_readers():
    yield Reader("volume", Volume, "tests.volumes:VolumeReader", suffixes=(".vol",), index=index)
