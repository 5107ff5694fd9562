"""The images that are named: files, folders and manifests, read as the model's own images were."""

from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy as np

from dinomx_core import DataError
from dinomx_core.builtin.arrange import arrange
from dinomx_core.builtin.manifest import is_manifest
from dinomx_core.builtin.picture_options import ImageFolder
from dinomx_core.builtin.pictures import Pictures, as_text
from dinomx_core.declare.reading import PlaneReader
from dinomx_core.planning.origin import Reading
from dinomx_core.training.construct import construct
from dinomx_core.training.contracts import Dataset
from dinomx_core.training.embed.images import Images, find_images
from dinomx_core.training.embed.passes import EmbeddedImages
from dinomx_core.training.flow import Item


@attrs.frozen(eq=False)
class Found(Dataset):
    """All images that are named, in their order, as one data set. faults: files that are left out, each with its reason."""

    parts: tuple[EmbeddedImages, ...]
    faults: tuple[str, ...]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def __getitem__(self, index: int) -> Item:
        for part in self.parts:
            if index < len(part):
                return part[index]
            index -= len(part)
        raise IndexError(index)


def find(places: Sequence[Path], reading: Reading) -> Found:
    """The images of all places. Raises DataError for a place that is not there, or has none."""
    reader: PlaneReader = construct(reading.reader)
    folders = reading.reader.component.folders  # whether a folder may be one image's file
    parts, files = [], list[Path]()
    for place in places:
        place = place.expanduser()
        if not place.exists():
            raise DataError(f'there is no file or folder "{place}" (looked in {Path.cwd()})')
        alone = place.is_dir() and folders and place.name.lower().endswith(reading.reader.component.suffixes)
        if alone or (place.is_file() and not is_manifest(place)):
            files.append(place)
            continue
        if files:
            parts.append(of_files(files, reading))
            files = []
        parts.append(find_images(place, "", reading))
    if files:
        parts.append(of_files(files, reading))
    for part in parts:
        part.check_files()
    faults = tuple(fault for part in parts for fault in part.pictures.faults)
    return Found(tuple(EmbeddedImages(part, reader) for part in parts), faults)


def of_files(files: Sequence[Path], reading: Reading) -> Images:
    """The images that single files hold: one each, or all slices of a volume. Raises DataError where one file is less than an image."""
    if reading.columns or reading.stack:
        raise DataError(
            f"{files[0]}: this model's images are made of several files; name "
            + ("a manifest with their columns" if reading.columns else "the folder that holds them")
        )
    options = ImageFolder(path="", reader=reading.reader, neighbours=reading.neighbours)
    arranged = arrange(options, [[file.absolute() for file in files]])
    none: np.ndarray = np.full(len(arranged.planes), -1, np.int32)
    pictures = Pictures(
        Path.cwd(), tuple(map(str, files)), arranged.planes, none, (), none, (), faults=arranged.faults, own=reading.neighbours
    )  # fmt: skip
    ids = tuple(as_text(pictures.id(image)) for image in range(len(pictures)))
    return Images(pictures, ids, ("",) * len(ids), {}, "", None)
