"""What some images of a data set are like, evenly chosen: what `inspect` tells of pixels. No torch."""

from collections.abc import Callable, Sequence

import attrs
import numpy as np

from dinomx_core.declare.reading import Plane, Sampled
from dinomx_core.errors import DataError

PROBES = 8  # images that are looked at


@attrs.frozen
class Look:
    """Channels of the data set, and what pixels are like."""

    channels: int
    sampled: Sampled


def evenly(count: int, most: int = PROBES) -> list[int]:
    """Some numbers below `count`, from the first to the last."""
    return sorted({round(i * (count - 1) / max(1, most - 1)) for i in range(most)})


def look(read: Callable[[int], Plane], numbers: Sequence[int], count: int, channels: int = 0, known: int = 0) -> Look:
    """Read some of `count` images, which become images of `channels` (0: as they are); `known`: channels of the data set, where that is
    known. Raises DataError where none can be read, or they have different channels."""
    planes, fault = [], ""
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
    return Look(channels or known or found[0], sampled_of(planes))


def sampled_of(planes: Sequence[Plane]) -> Sampled:
    """What planes have in common. Truth values count as 0 and 255, as they are handed on."""
    pixels = [plane.pixels.astype(np.uint8) * 255 if plane.pixels.dtype == bool else plane.pixels for plane in planes]
    kind = np.result_type(*[array.dtype for array in pixels]).name
    filled = [array for array in pixels if array.size]
    units, full = {plane.units for plane in planes}, {plane.full for plane in planes}
    return Sampled(
        kind,
        float(min((array.min() for array in filled), default=0)),
        float(max((array.max() for array in filled), default=0)),
        units.pop() if len(units) == 1 else "",
        full.pop() if len(full) == 1 else None,
    )
