"""What NIfTI files hold, from headers alone; which slices are empty, from their voxels once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dinomx_core.declare.reading import Index, Stack
from dinomx_core.errors import DataError
from dinomx_medical_multichannel.nifti import LOOKS, MIB, Volume, open_volume

if TYPE_CHECKING:
    from dinomx_medical_multichannel.plugin import Nifti

AT_ONCE = 8  # files whose headers are read side by side: on a network each is a wait


def index(options: Nifti, files: Sequence[Path]) -> Index:
    """A stack a volume, or a stack a time of it."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        volumes = list(pool.map(look, files))
    stacks: list[Stack] = []
    faults = []
    large = skipped = 0
    for number, (file, volume) in enumerate(zip(files, volumes)):
        try:
            if isinstance(volume, DataError):
                raise volume
            found = stacks_of(options, number, file, volume)
        except DataError as error:
            faults.append(f"{file.name}: {error}")
            continue
        stacks += found
        skipped += sum(len(stack.planes) - len(stack.used) for stack in found if stack.used is not None)
        large += compressed(file) and size_of(volume) > options.cache * MIB
    notes = []
    if skipped:
        notes.append(f"{skipped} slices are left out as empty (skip_empty = {options.skip_empty:g})")
    if large:
        notes.append(
            f"{large} volumes are larger than cache = {options.cache} (MiB) and are decompressed anew for each slice; "
            "raise it, or store them uncompressed"
        )
    return Index(tuple(stacks), tuple(faults), tuple(notes))


def look(file: Path) -> Volume | DataError:
    """A file's header, or what is wrong with it."""
    try:
        return open_volume(file, header_only=True)
    except DataError as error:
        return error


def compressed(file: Path) -> bool:
    """Whether a volume has to be decompressed as a whole."""
    return file.suffix.lower() in (".gz", ".mgz", ".bz2")


def size_of(volume: Volume) -> int:
    """Bytes of its voxels."""
    return int(np.prod(volume.voxels.shape, dtype=int)) * volume.voxels.dtype.itemsize


def stacks_of(options: Nifti, number: int, file: Path, volume: Volume) -> list[Stack]:
    """The slices of a volume, by time where times are frames."""
    count = volume.count(options.axis)
    times = volume.times if options.fourth == "frames" else 1
    full = filled(file, options.axis, options.fourth) if options.skip_empty else None
    stacks = []
    for time in range(times):
        planes = tuple((number, time * count + place) for place in range(count))
        used = None
        if full is not None and min(full[time]) < options.skip_empty:
            used = tuple(place for place in range(count) if full[time][place] >= options.skip_empty)
        stacks.append(Stack(planes, used, f"{file.name} {time + 1}" if times > 1 else ""))
    return stacks


def filled(file: Path, axis: str, fourth: str) -> list[list[float]]:
    """Of each time and slice, the share of voxels above the smallest of that time. Looked up where it was worked out before."""
    about = file.stat()
    what = json.dumps([os.path.realpath(file), about.st_size, about.st_mtime_ns, axis, fourth])
    known = cache_folder() / f"{hashlib.blake2b(what.encode(), digest_size=16).hexdigest()}.json"
    try:
        return json.loads(known.read_text("utf-8"))
    except (OSError, ValueError):
        shares = work_out(open_volume(file), axis, fourth)
    try:
        known.parent.mkdir(parents=True, exist_ok=True)
        fresh = known.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(shares), "utf-8")
        os.replace(fresh, known)
    except OSError:  # a home that cannot be written to: worked out anew the next time
        pass
    return shares


def cache_folder() -> Path:
    """Where such results are kept from run to run."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dinomx" / "nifti"


def work_out(volume: Volume, axis: str, fourth: str) -> list[list[float]]:
    """The same from the voxels. Red, green and blue, and channels, count as voxels of their own."""
    voxels = np.asanyarray(volume.voxels)
    if voxels.dtype.names is not None:
        voxels = np.stack([voxels[name] for name in voxels.dtype.names[:3]], -1)
    across, against = volume.stored[LOOKS[axis][0]]
    voxels = np.moveaxis(voxels, across, 0)[:: -1 if against else 1]
    voxels = voxels.reshape(*voxels.shape[:3], -1, order="F")
    times = np.moveaxis(voxels, 3, 0)[..., None] if fourth == "frames" and volume.times > 1 else voxels[None]
    return [shares(time, volume.slope < 0) for time in times]


def shares(slices: np.ndarray, turned: bool) -> list[float]:
    """Of each slice (slices, ...) the share above the smallest number of all; stored numbers that a slope turns round are below the
    largest."""
    above = slices < np.nanmax(slices) if turned else slices > np.nanmin(slices)
    return [float(share) for share in above.reshape(len(slices), -1).mean(1)]
