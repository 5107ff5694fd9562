"""The reader "ome-zarr": planes of an image pyramid (NGFF 0.4 and 0.5), chunk by chunk. No torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import attrs
import numpy as np

from dinomx_core.declare.numbers import known_type
from dinomx_core.declare.reading import Index, Plane, PlaneReader, Region, Stack
from dinomx_core.errors import DataError
from dinomx_medical_multichannel.axes import Layout, check_channels, picked
from dinomx_medical_multichannel.kept import Kept

if TYPE_CHECKING:
    from dinomx_medical_multichannel.plugin import OmeZarr

ROOM, EACH = 1 << 20, 1 << 12  # bytes of metadata that are kept; about what an image takes
OLD = "tczyx"  # axes of versions that do not tell them
KINDS = {"channel": "C", "time": "T"}
MILLIMETRES = {"nanometer": 1e-6, "micrometer": 1e-3, "millimeter": 1.0, "centimeter": 10.0, "meter": 1000.0}
AT_ONCE = 8  # images that are looked at side by side: on a network each is a wait


@attrs.frozen(eq=False)
class Level:
    """A level of an image's pyramid. array: read only where it is indexed."""

    array: Any
    layout: Layout
    spacing: tuple[float, float] | None


class OmeZarrReader(PlaneReader):
    """Keeps the metadata of the images that it read last, and reads the chunks that a region touches."""

    def __init__(self, options: OmeZarr):
        need_zarr()
        self.options = options
        self.kept: Kept[Level] = Kept(ROOM)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.options,)

    def decode(self, file: Path | IO[bytes], frame: int) -> Plane:
        """A plane with its channels."""
        return self.read(file, frame)

    def read(self, file: Path | IO[bytes], frame: int = 0, region: Region | None = None) -> Plane:
        """The same, or a region of it."""
        if not isinstance(file, Path):
            raise DataError("is read from a folder only; unpack the files that hold it")
        level = self.kept.get(os.fspath(file), lambda: (open_level(file, self.options), EACH))
        try:
            pixels = level.layout.planes(np.asarray(level.array[level.layout.at(frame, region)]))
        except DataError:
            raise
        except Exception as error:  # stores and codecs raise whatever they stumble over
            raise DataError(told(error)) from None
        return Plane(known_type(picked(pixels, self.options.channels)), spacing=level.spacing)


def need_zarr() -> None:
    """Raise DataError where zarr is not installed."""
    try:
        import zarr  # noqa: F401
    except ImportError:
        raise DataError('OME-Zarr needs zarr: pip install "dinomx-medical-multichannel[zarr]"') from None


def told(error: Exception) -> str:
    """What is wrong, as a person is told."""
    return f"cannot be read as OME-Zarr: {(str(error) or type(error).__name__).strip().splitlines()[0]}"


def open_level(folder: Path, options: OmeZarr) -> Level:
    """The level that the options name. Raises DataError when it cannot be read."""
    import zarr

    try:
        group = zarr.open_group(folder, mode="r", path=options.image or None)
        about = dict(group.attrs)
        about = about.get("ome", about)
        if "multiscales" not in about:
            raise DataError(no_image(group, about), "image")
        pyramid = about["multiscales"][0]
        levels = pyramid["datasets"]
        if options.level >= len(levels):
            raise DataError(f"level = {options.level}: it has {len(levels)} levels, counted from 0", "level")
        level = levels[options.level]
        array = group[level["path"]]
        axes = pyramid.get("axes") or list(OLD[-array.ndim :])
        axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in axes]
        if len(axes) != array.ndim:
            raise DataError(f"names {len(axes)} axes of an array that has {array.ndim}")
        layout = Layout("".join(map(letter, axes)), tuple(array.shape))
        return Level(array, layout, spacing(axes, layout, [*transforms(level), *transforms(pyramid)]))
    except DataError:
        raise
    except Exception as error:  # zarr raises whatever it stumbles over
        raise DataError(told(error)) from None


def no_image(group: Any, about: dict[str, Any]) -> str:
    """Why a folder is no image; where it holds several, how one of them is named."""
    if "plate" in about:
        inside = [f"{well['path']}/0" for well in about["plate"].get("wells", ())]
    else:
        inside = sorted(name for name, _ in group.groups())
    if not inside:
        return "holds no image: its metadata has no multiscales"
    return f'is a collection of images; name one of them, such as image = "{inside[0]}", or list their folders'


def letter(axis: dict[str, Any]) -> str:
    """What an axis is called here."""
    return KINDS.get(axis.get("type", ""), axis["name"][:1].upper())


def transforms(of: dict[str, Any]) -> list[list[float]]:
    """The scales that a level or a pyramid tells."""
    return [one["scale"] for one in of.get("coordinateTransformations") or () if one.get("type") == "scale"]


def spacing(axes: list[dict[str, Any]], layout: Layout, scales: list[list[float]]) -> tuple[float, float] | None:
    """(row, column) millimetres of a pixel; None where scale or unit are not told."""
    sides = []
    for name in "YX":
        place = layout.axes.index(name)
        unit = MILLIMETRES.get(axes[place].get("unit") or "", 0.0)
        sides.append(float(np.prod([scale[place] for scale in scales])) * unit if scales else 0.0)
    return (sides[0], sides[1]) if min(sides) > 0 else None


def index(options: OmeZarr, folders: Sequence[Path]) -> Index:
    """A stack of planes an image, or several where it has planes along several axes."""
    need_zarr()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(lambda number: look(options, number, folders[number]), range(len(folders))))
    stacks = [stack for one in found if not isinstance(one, str) for stack in one]
    faults = [f"{folder.name}: {one}" for folder, one in zip(folders, found) if isinstance(one, str)]
    return Index(tuple(stacks), tuple(faults))


def look(options: OmeZarr, number: int, folder: Path) -> list[Stack] | str:
    """An image's stacks, or what is wrong with it."""
    try:
        layout = open_level(folder, options).layout
        check_channels(layout.channels, options.channels)
        return layout.stacks(number, folder.name)
    except DataError as error:
        return str(error)
