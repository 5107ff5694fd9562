"""The arrays of a MedMNIST file, unpacked once into the cache and mapped from there, so that all processes share them. No torch."""

import os
import shutil
import zipfile
import zlib
from pathlib import Path

import numpy as np

from dinomx_core.builtin import cache
from dinomx_core.builtin.looking import Look, look
from dinomx_core.builtin.remote import local, stamp
from dinomx_core.builtin.sources import MedMnist
from dinomx_core.declare.reading import Plane
from dinomx_core.errors import DataError

SPLITS = ("train", "val", "test")


class Arrays:
    """Images of the parts that are asked for, one after another. labels: as `labels` has them; where a file
    has several columns of them, an image is of several classes."""

    def __init__(self, options: MedMnist):
        self.options = options
        splits = SPLITS if options.split == "all" else (options.split,)
        path = os.path.expanduser(options.path)
        size, state = stamp(path)
        members, every = open_file(local(path), options.path)
        self.splits = [split for split in splits if f"{split}_images" in members]
        if not self.splits:
            have = ", ".join(split for split in SPLITS if f"{split}_images" in members)
            raise DataError(f'"{options.path}" has no part "{options.split}"; it has {have}', "split")
        self.images = [unpacked(local(path), f"{split}_images.npy", state) for split in self.splits]
        self.depth = 1
        self.notes: tuple[str, ...] = ()
        shape = self.images[0].shape
        if len(shape) == 4 and shape[-1] not in (1, 3):
            if options.volumes == "refuse":
                sizes = " x ".join(map(str, shape[1:]))
                raise DataError(
                    f'holds volumes of {sizes}; set volumes = "slices" to take their slices as images', "volumes"
                )
            self.depth = shape[1]
            self.notes = (f"each of {sum(map(len, self.images))} volumes gives {self.depth} images, its slices",)
        elif len(shape) not in (3, 4):
            raise DataError(
                f'"{options.path}" holds arrays of shape {shape}; expected (images, rows, columns[, 3])', "path"
            )
        self.starts = np.cumsum([0, *(len(images) * self.depth for images in self.images)])
        self.classes, self.labels = self._labels(every)
        self.digest = f"{size}-{self.starts.tolist()}-{self.depth}"

    def _labels(self, every: dict[str, np.ndarray]) -> tuple[tuple[str, ...], np.ndarray]:
        """Class names, which are the same for all parts, and each image's label."""
        columns = {labels.shape[1] for labels in every.values() if labels.ndim == 2}
        if max(columns, default=1) > 1 or any(f"{split}_labels" not in every for split in self.splits):
            if len(columns) == 1 and all(f"{split}_labels" in every for split in self.splits):
                rows: np.ndarray = np.concatenate([every[f"{split}_labels"] for split in self.splits])
                return tuple(map(str, range(rows.shape[1]))), (rows > 0).astype(np.int8).repeat(self.depth, 0)
            return (), np.full(len(self), -1, np.int32)
        largest = max(int(labels.max()) for labels in every.values() if labels.size)
        found: list[np.ndarray] = [
            np.repeat(every[f"{split}_labels"].reshape(-1).astype(np.int32), self.depth) for split in self.splits
        ]
        return tuple(map(str, range(largest + 1))), np.concatenate(found)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def _place(self, index: int) -> tuple[int, int, int]:
        """Part, number in it, slice."""
        part = int(np.searchsorted(self.starts, index, "right")) - 1
        return part, *divmod(index - int(self.starts[part]), self.depth)

    def name(self, index: int) -> tuple[str, str]:
        """What an image is called ("train/17", of a volume "train/17/3"), and what it belongs to: its volume, or nothing."""
        part, number, slice_ = self._place(index)
        own = f"{self.splits[part]}/{number}"
        return (f"{own}/{slice_}", own) if self.depth > 1 else (own, "")

    def read(self, index: int) -> Plane:
        """One image."""
        part, number, slice_ = self._place(index)
        image = self.images[part][number]
        image = image[slice_] if self.depth > 1 else image
        return Plane(np.array(image[None] if image.ndim == 2 else image.transpose(2, 0, 1)))


def open_file(file: Path, name: str) -> tuple[set[str], dict[str, np.ndarray]]:
    """The arrays that a file has, and all labels. Raises DataError where it is no MedMNIST file."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            members = set(arrays.files)
            labels = {member: arrays[member] for member in members if member.endswith("_labels")}
    except FileNotFoundError:
        raise DataError(f'there is no file "{name}"', "path") from None
    except (OSError, ValueError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        why = "it is no archive of NumPy arrays, or damaged; fetch it again" if "pickle" in str(error) else error
        raise DataError(f'"{name}" cannot be read as .npz: {why}', "path") from None
    if not any(f"{split}_images" in members for split in SPLITS):
        have = ", ".join(sorted(members)) or "nothing"
        raise DataError(
            f'"{name}" is no MedMNIST file: it has no array train_images, val_images or test_images, but {have}', "path"
        )
    return members, labels


def unpacked(file: Path, member: str, state: str) -> np.ndarray:
    """An array of the file, mapped from the cache. Raises DataError where it is damaged."""
    where = f"{file.absolute()}/{member}"
    key = cache.state_of(where, state)

    def write(draft: Path) -> None:
        with zipfile.ZipFile(file) as archive, archive.open(member) as packed, draft.open("wb") as plain:
            shutil.copyfileobj(packed, plain, 1 << 20)

    try:
        return np.load(cache.find(key, where) or cache.fetch(key, where, write), mmap_mode="r", allow_pickle=False)
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError) as error:
        raise DataError(f"{file}: {member} cannot be read: {error}; fetch the file again", "path") from None


def look_at(arrays: Arrays) -> Look:
    """What some images are like."""
    return look(arrays.read, len(arrays), len(arrays), arrays.options.channels)
