"""Images as files hold them: one plane or several of one file or several make an image. No torch, so that the plan can look at some."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from dinomx_core.declare.reading import Plane, PlaneReader, Sampled
from dinomx_core.errors import DataError

if TYPE_CHECKING:
    import numpy as np

PROBES, SHOWN = 8, 5  # images that are looked at; names in a message


@attrs.frozen(eq=False, slots=False)
class Pictures:
    """Images in their order.

    files: as they are written, below `root`, absolute, or addresses. planes (images, K, 2): for each image the number of a file and a frame
    in it, K times, stacked as channels. labels: of each image, as `labels` has them. group_of (images,): indices into `groups`, or -1.
    regions (images, 4): top, left, height, width of what is cut out of the planes; None: all. names: of the channels, where they have any.
    faults: files that are left out, and why. own: which of its K planes an image is called after; the others are neighbours or channels.
    masks (images, 2): file and frame of each image's mask; None: there are none. shift: regions that reach over an edge are moved inside.
    """

    root: Path
    files: tuple[str, ...]
    planes: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    group_of: np.ndarray
    groups: tuple[str, ...]
    regions: np.ndarray | None = None
    names: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    own: int = 0
    masks: np.ndarray | None = None
    shift: bool = False

    def __len__(self) -> int:
        return len(self.planes)

    @property
    def digest(self) -> str:
        """Stands for which images these are, in their order."""
        digest = hashlib.blake2b("\n".join(self.files).encode("utf-8", "surrogateescape"), digest_size=8)
        for array in (self.planes, self.regions, self.masks):
            if array is not None:
                digest.update(array.tobytes())
        return digest.hexdigest()

    def place(self, number: int) -> Path:
        """A file, fetched first where it is an address."""
        return place(self.root, self.files[number])

    def id(self, image: int) -> str:
        """A name for an image: its file, and the frame and the region where it is only a part of that."""
        file, frame = self.planes[image, self.own]
        parts = [self.files[file]]
        if frame or self.several[file]:
            parts.append(f"#{frame}")
        if self.regions is not None:
            parts.append("@" + ",".join(map(str, self.regions[image])))
        return "".join(parts)

    @cached_property
    def several(self) -> np.ndarray:
        """(files,): whether more than the first frame of a file is used."""
        import numpy as np

        found: Any = np.zeros(len(self.files), bool)
        found[self.planes[..., 0][self.planes[..., 1] > 0]] = True
        return found

    def group(self, image: int) -> str:
        """What an image belongs to, or ""."""
        number = self.group_of[image]
        return self.groups[number] if number >= 0 else ""

    def only(self, keep: np.ndarray) -> Pictures:
        """Some of the images."""
        regions, masks = (None if array is None else array[keep] for array in (self.regions, self.masks))
        return attrs.evolve(
            self, planes=self.planes[keep], labels=self.labels[keep], group_of=self.group_of[keep], regions=regions, masks=masks
        )  # fmt: skip


def place(root: Path, file: str) -> Path:
    """A file by its name below a folder, its whole path, or an address, from where it is fetched."""
    if "://" in file:
        from dinomx_core.builtin.remote import local

        return local(file)
    return root / file


def read_plane(pictures: Pictures, read: Callable[..., Plane], image: int, number: int, frame: int) -> Plane:
    """One plane of an image, or its region of it, by a reader's `read` or `read_mask`. Raises DataError naming the file."""
    file = pictures.place(number)
    region = None if pictures.regions is None else [int(n) for n in pictures.regions[image]]
    try:
        if region is None:
            return read(file, frame)
        if pictures.shift:
            region[:2] = [max(0, start) for start in region[:2]]
        plane = read(file, frame, tuple(region))
        short = [wanted - have for wanted, have in zip(region[2:], plane.pixels.shape[1:])]
        if any(short) and pictures.shift:
            region[:2] = [max(0, start - lack) for start, lack in zip(region[:2], short)]
            plane = read(file, frame, tuple(region))
        if plane.pixels.shape[1:] != tuple(region[2:]):
            raise DataError(
                f"the region of {region[3]} x {region[2]} pixels at {region[1]}, {region[0]} reaches over its edge"
            )
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    except Exception as error:  # decoders raise whatever they stumble over
        raise DataError(f"{file}: cannot be read as an image: {error}") from None
    return plane


def read(pictures: Pictures, reader: PlaneReader, image: int) -> Plane:
    """An image's planes as one, channel after channel. Raises DataError naming the file that cannot be read."""
    import numpy as np

    places = pictures.planes[image].tolist()
    planes = [read_plane(pictures, reader.read, image, number, frame) for number, frame in places]
    first = planes[0]
    if len(planes) == 1:
        return first
    for (number, _), plane in zip(places, planes):
        for what, ours, theirs in (
            ("size", first.pixels.shape[1:], plane.pixels.shape[1:]), ("units", first.units, plane.units),
        ):  # fmt: skip
            if ours != theirs:
                other = pictures.files[places[0][0]]
                raise DataError(
                    f"{pictures.place(number)}: is of the {what} {theirs or 'none'}, but {other}, a channel of the same image, "
                    f"of {ours or 'none'}"
                )
    full = first.full if all(plane.full == first.full for plane in planes) else None
    return attrs.evolve(first, pixels=np.concatenate([plane.pixels for plane in planes]), full=full)


def evenly(count: int, wanted: int) -> list[int]:
    """Some numbers below `count`, evenly spread, the first and the last among them."""
    wanted = min(wanted, count)
    return sorted({round(i * (count - 1) / max(1, wanted - 1)) for i in range(wanted)})


@attrs.frozen
class Look:
    """What some of the images are like: how many channels which of them has, and their numbers."""

    channels: dict[int, str]
    sampled: Sampled


def look(pictures: Pictures, reader: PlaneReader) -> Look:
    """Read a few images. Raises DataError when none of them can be read."""
    fault, channels, seen = "", dict[int, str](), list[Plane]()
    probes = evenly(len(pictures), PROBES)
    for image in probes:
        try:
            plane = read(pictures, reader, image)
        except DataError as error:
            fault = fault or str(error)
            continue
        channels.setdefault(plane.pixels.shape[0], pictures.id(image))
        seen.append(plane)
    if not seen:
        raise DataError(
            f"none of the {len(probes)} images looked at (of {len(pictures)}) can be read; the first: {fault}", "path"
        )
    return Look(channels, sample(seen))


def sample(planes: Sequence[Plane]) -> Sampled:
    """What planes are like. Raises DataError where they are of different units."""
    import numpy as np

    if len(units := sorted({plane.units for plane in planes})) > 1:
        raise DataError(f"some images have the units {units[1]}, others {units[0] or 'none'}; keep them apart", "path")
    kind = np.result_type(*(plane.pixels.dtype for plane in planes)).name
    ends = [(float(plane.pixels.min()), float(plane.pixels.max())) for plane in planes if plane.pixels.size]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    fulls = {plane.full for plane in planes}
    return Sampled(kind, low, high, units[0], fulls.pop() if len(fulls) == 1 else None)


def numbered(values: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Texts as numbers of the sorted different ones; "" is -1."""
    import numpy as np

    names = tuple(sorted(set(values) - {""}))
    number = {name: n for n, name in enumerate(names)}
    return np.array([number.get(value, -1) for value in values], np.int32), names


def in_test_part(group: str, seed: int, holdout: float) -> bool:
    """Whether a group is held out: by its name alone, so that it is the same everywhere and for good."""
    digest = hashlib.blake2b(f"{seed} {group}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 < holdout


def take_part(pictures: Pictures, options: Any) -> Pictures:
    """The part of the images that the options want, all images of a group (of a file, where no group is known) on one side."""
    import numpy as np

    if options.part == "all":
        return pictures
    units = [
        pictures.group(i) or pictures.files[int(pictures.planes[i, pictures.own, 0])] for i in range(len(pictures))
    ]
    held = {unit: in_test_part(unit, options.split_seed, options.holdout) for unit in set(units)}
    test = np.array([held[unit] for unit in units], bool)
    kept = pictures.only(test if options.part == "test" else ~test)
    if not len(kept):
        raise DataError(
            f"no image is in the {options.part} part: {len(held)} groups, of which {options.holdout:g} are held out; "
            "change split_seed or holdout",
            "part",
        )
    count = sum(value == (options.part == "test") for value in held.values())
    what = "groups" if pictures.groups else "files, since no group is known"
    return attrs.evolve(
        kept,
        notes=(
            *kept.notes,
            f"the {options.part} part has {len(kept)} of {len(pictures)} images, {count} of {len(held)} {what}",
        ),
    )


def as_text(name: str) -> str:
    """A file's name as UTF-8 takes it, which not every name is."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
