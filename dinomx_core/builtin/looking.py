"""What some images of a data set are like, evenly chosen: what `inspect` tells of pixels. No torch."""

from collections.abc import Callable

import attrs

from dinomx_core.builtin.pictures import evenly, sample
from dinomx_core.declare.reading import Plane, Sampled
from dinomx_core.errors import DataError

PROBES = 8  # images that are looked at


@attrs.frozen
class Look:
    """Channels of the data set, and what pixels are like."""

    channels: int
    sampled: Sampled


def look(read: Callable[[int], Plane], among: int, count: int, channels: int = 0, known: int = 0) -> Look:
    """Read some of the first `among` of `count` images, which become images of `channels` (0: as they are); `known`: channels of the
    data set, where that is known. Raises DataError where none can be read, or they have different channels."""
    planes, fault, numbers = [], "", evenly(among, min(PROBES, among))
    for number in numbers:
        try:
            planes.append(read(number))
        except DataError as error:
            fault = fault or str(error)
    if not planes:
        raise DataError(
            f"none of the {len(numbers)} images looked at (of {count}) can be read; the first: {fault}", "path"
        )
    found = sorted({plane.pixels.shape[0] for plane in planes})
    if channels and not set(found) <= {1, 3}:
        raise DataError(
            f"images of {found[-1]} channels cannot become images of {channels}; leave channels out", "channels"
        )
    if len(found) > 1 and not channels and not known:
        have = f"{', '.join(map(str, found[:-1]))} and {found[-1]}"
        remedy = "set channels = 3 or channels = 1" if set(found) == {1, 3} else "use images of one kind"
        raise DataError(f"the images looked at have {have} channels; {remedy}", "channels")
    return Look(channels or known or found[0], sample(planes))
