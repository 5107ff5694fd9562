"""The reader "nifti": slices of volumes as radiologists look at them, wherever the file has its axes. No torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import attrs
import numpy as np

from dinomx_core.declare.numbers import known_type
from dinomx_core.declare.reading import Plane, PlaneReader
from dinomx_core.errors import DataError
from dinomx_medical_multichannel.kept import Kept

if TYPE_CHECKING:
    from dinomx_medical_multichannel.plugin import Nifti

MIB = 1 << 20
# Axes of the world (0: to the right, 1: anterior, 2: superior): across slices, down a column of pixels, along a row of them. Rows and
# columns both run against their axis: from anterior to posterior or superior to inferior, from right to left or anterior to posterior.
LOOKS = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}
MILLIMETRES = {"meter": 1000.0, "micron": 0.001}  # of other units, and where none are said: 1


@attrs.frozen(eq=False)
class Volume:
    """A file. voxels: as they are stored, (X, Y, Z) and what more axes there are. stored[w]: the storage axis that lies closest to the
    world's axis w, and whether it runs against it. zooms: millimetres along storage axes."""

    voxels: Any  # an array, or what has its shape and type
    slope: float
    inter: float
    stored: tuple[tuple[int, bool], ...]
    zooms: tuple[float, ...]

    def count(self, axis: str) -> int:
        """Slices of a look."""
        return self.voxels.shape[self.stored[LOOKS[axis][0]][0]]

    @property
    def times(self) -> int:
        """What the axes beyond the third hold."""
        return int(np.prod(self.voxels.shape[3:], dtype=int))

    def slices(self, axis: str, number: int) -> np.ndarray:
        """Slice `number` of a look at all times, as (times, H, W) of stored numbers."""
        (across, against), (down, up), (along, left) = (self.stored[world] for world in LOOKS[axis])
        at = self.voxels.shape[across] - 1 - number if against else number
        cut = np.moveaxis(self.voxels, (across, down, along), (0, 1, 2))[at]
        cut = cut[:: 1 if up else -1, :: 1 if left else -1]
        return np.moveaxis(cut.reshape(*cut.shape[:2], -1, order="F"), 2, 0)

    def spacing(self, axis: str) -> tuple[float, float]:
        """(row, column) millimetres of a look's pixels."""
        _, down, along = (self.stored[world][0] for world in LOOKS[axis])
        return self.zooms[down], self.zooms[along]

    def scaled(self, stored: np.ndarray) -> np.ndarray:
        """What stored numbers mean. Whole ones stay whole where nothing scales them; floats have 64 bits only where fewer lose some."""
        if self.slope == 1 and self.inter == 0:
            return stored
        wide = stored.dtype.itemsize > 4 or (stored.dtype.kind in "ui" and stored.dtype.itemsize > 2)
        return (stored * np.float64(self.slope) + self.inter).astype(np.float64 if wide else np.float32)


class NiftiReader(PlaneReader):
    """Keeps decompressed volumes up to the option `cache`; files that are not compressed are mapped, and only what a slice needs is
    read."""

    def __init__(self, options: Nifti):
        self.options = options
        self.kept: Kept[Volume] = Kept(options.cache * MIB)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.options,)

    def decode(self, file: Path | IO[bytes], frame: int) -> Plane:
        """A slice; its channels are what the fourth axis holds, unless that makes frames."""
        if not isinstance(file, Path):
            raise DataError("is read from a path only; unpack the files that hold it")
        volume = self._volume(file)
        options = self.options
        count = volume.count(options.axis)
        frames = count * (volume.times if options.fourth == "frames" else 1)
        if not 0 <= frame < frames:
            raise DataError(f"has no slice {frame}; there are {frames} ({options.axis})")
        time, number = divmod(frame, count)
        pixels = volume.slices(options.axis, number)
        if options.fourth == "frames":
            pixels = pixels[time : time + 1]
        try:
            pixels = volume.scaled(known_type(as_channels(pixels)))
        except OSError as error:  # of a mapped file
            raise DataError(f"cannot be read: {error.strerror or error}") from None
        return Plane(np.ascontiguousarray(pixels), options.units, spacing=volume.spacing(options.axis))

    def _volume(self, file: Path) -> Volume:
        try:
            about = file.stat()
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror or error}") from None
        return self.kept.get((os.fspath(file), about.st_size, about.st_mtime_ns), lambda: weighed(open_volume(file)))


def weighed(volume: Volume) -> tuple[Volume, int]:
    """A volume and the bytes that keeping it would take; 0 for one that is mapped, and need not be kept."""
    return volume, 0 if isinstance(volume.voxels, np.memmap) else volume.voxels.nbytes


def as_channels(pixels: np.ndarray) -> np.ndarray:
    """(times, H, W) whose numbers may be red, green and blue -> (C, H, W)."""
    if pixels.dtype.names is None:
        return pixels
    return np.concatenate([pixels[name] for name in pixels.dtype.names[:3]])


def open_volume(file: Path, header_only: bool = False) -> Volume:
    """A file; with its voxels, or only their shape and type. Raises DataError when it cannot be read."""
    import nibabel
    from nibabel.orientations import io_orientation

    try:
        image: Any = nibabel.load(file)
        data = image.dataobj
        voxels = data if header_only else data.get_unscaled()
        slope, inter = float(data.slope), float(data.inter)
        found = io_orientation(image.affine)
        zooms = [float(zoom) for zoom in image.header.get_zooms()[:3]]
        unit = image.header.get_xyzt_units()[0] if hasattr(image.header, "get_xyzt_units") else "mm"
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}") from None
    except Exception as error:  # nibabel raises whatever it stumbles over
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"cannot be read as NIfTI: {why}") from None
    if np.isnan(found).any():
        raise DataError("does not say how its axes lie in the world; give its header a valid sform or qform")
    if not all(voxels.shape):
        raise DataError(f"holds no voxels: its shape is {tuple(voxels.shape)}")
    missing = 3 - len(voxels.shape)
    if missing > 0:
        zooms += [1.0] * missing
        voxels = (
            Shape((*voxels.shape, *[1] * missing), voxels.dtype) if header_only else voxels[(..., *[None] * missing)]
        )
    places = sorted((int(world), storage, way < 0) for storage, (world, way) in enumerate(found))
    scale = MILLIMETRES.get(unit, 1.0)
    return Volume(
        voxels,
        slope,
        inter,
        tuple((storage, against) for _, storage, against in places),
        tuple(z * scale for z in zooms),
    )


@attrs.frozen
class Shape:
    """What stands for voxels that are not read."""

    shape: tuple[int, ...]
    dtype: Any
