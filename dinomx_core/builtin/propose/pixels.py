"""What some images of a data set are like, read without torch."""

from collections.abc import Callable
from typing import Any

import attrs
import numpy as np

from dinomx_core.builtin.pictures import evenly
from dinomx_core.declare.facts import DataInfo
from dinomx_core.declare.reading import Plane
from dinomx_core.declare.values import Chosen
from dinomx_core.errors import DataError
from dinomx_core.training.construct import construct

PROBES = 12


@attrs.frozen(eq=False)
class Looked:
    """A data set and some of its planes. files: how many planes its largest file or stack seems to have is not known, so `many` says only
    whether there are more images than files."""

    info: DataInfo
    planes: tuple[Plane, ...]
    many: bool

    @property
    def side(self) -> int:
        """The shorter side of an image, in pixels: the middle one of those that were looked at."""
        return sorted(min(plane.pixels.shape[1:]) for plane in self.planes)[len(self.planes) // 2]

    @property
    def sizes(self) -> str:
        """Of the images, in words."""
        found = sorted({(plane.pixels.shape[2], plane.pixels.shape[1]) for plane in self.planes})
        first, last = (f"{width} x {height}" for width, height in (found[0], found[-1]))
        return first if len(found) == 1 else f"{first} to {last}"

    @property
    def channels(self) -> set[int]:
        """Of the images as the files have them."""
        return {len(plane.pixels) for plane in self.planes}


def look_at(data: Chosen, files: int) -> Looked:
    """Inspect a data set and read some of its images. Raises DataError where none can be read."""
    info = data.component.inspect(data.options)
    read, planes, fault = reader_of(data), [], ""
    for index in evenly(info.count, PROBES):
        try:
            planes.append(read(index))
        except DataError as error:
            fault = fault or str(error)
    if not planes:
        raise DataError(f"no image can be read; the first: {fault}")
    return Looked(info, tuple(planes), 0 < files < info.count)


def reader_of(data: Chosen) -> Callable[[int], Plane]:
    """A function from an image's number to its plane, for each of the data sets that are proposed."""
    options: Any = data.options
    if data.component.name in ("image-folder", "manifest"):
        from dinomx_core.builtin.picture_sets import find_folder, find_rows
        from dinomx_core.builtin.pictures import read

        pictures = find_folder(options) if data.component.name == "image-folder" else find_rows(options)
        reader = construct(options.reader)
        return lambda index: read(pictures, reader, index)
    if data.component.name == "shards":
        from dinomx_core.builtin.tar_samples import Samples

        samples = Samples(options)
        return lambda index: samples.read(index).plane
    if data.component.name == "hf-dataset":
        from dinomx_core.builtin.hf_rows import Rows

        rows = Rows(options)
        return lambda index: rows.read(index)[0]
    from dinomx_core.builtin.medmnist_file import Arrays

    return Arrays(options).read


def moments(planes: tuple[Plane, ...], low: float, high: float) -> tuple[float, float]:
    """Mean and standard deviation of all pixels when `low` becomes 0 and `high` 1, and nothing lies beyond them."""
    scaled = [
        np.clip((plane.pixels.astype(np.float64) - low) / max(high - low, 1e-9), 0, 1).ravel() for plane in planes
    ]
    pixels = np.concatenate(scaled)
    return round(float(pixels.mean()), 2), max(0.05, round(float(pixels.std()), 2))
