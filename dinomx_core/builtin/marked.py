"""Masks and boxes for the images of another data set, from files beside them."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

import torch

from dinomx_core.builtin.marks import Marked, read_boxes
from dinomx_core.declare.reading import PlaneReader
from dinomx_core.errors import DataError
from dinomx_core.training.construct import construct
from dinomx_core.training.contracts import Dataset
from dinomx_core.training.flow import Item
from dinomx_core.training.images import from_plane
from dinomx_core.training.regions import Regions, classes_of

PART = re.compile(r"^(?P<file>.*?)(#(?P<frame>\d+))?(@(?P<region>\d+(,\d+){3}))?$", re.DOTALL)


class MarkedData(Dataset):
    """The images as they were; what lies where in them is read when it is asked for."""

    def __init__(self, options: Marked):
        self.options = options
        self.images: Dataset = construct(options.images)
        self.reader: PlaneReader = construct(options.mask_reader)
        self.boxes = read_boxes(options.boxes) if options.boxes else None
        self.check()

    def __len__(self) -> int:
        return len(self.images)

    def check(self) -> None:
        """Raise DataError where no image has a mask or a box by its name; nothing is read to find names."""
        for index in range(len(self)):
            id = self.images.name(index)
            if id is None or self.marks(id):
                return
        if not len(self):
            return
        first, told = str(self.images.name(0)), []
        if self.options.masks:
            told.append(f'its mask would be "{self.file(*names_of(first))}"')
        if self.boxes is not None:
            told.append(f'{self.options.boxes} names "{next(iter(self.boxes.of))}"')
        kinds = [name for name in ("masks", "boxes") if getattr(self.options, name)]
        raise DataError(
            f'none of the {len(self)} images has {" or ".join(kinds)}: the first is called "{first}", and {" and ".join(told)}; let these '
            "name images by their ids, with or without ending and folders",
            kinds[0],
        )

    def marks(self, id: str) -> bool:
        """Whether an image has a mask or a box by its name."""
        names = names_of(id)
        if self.boxes is not None and any(name in self.boxes.of for name in (id, *names)):
            return True
        return bool(self.options.masks) and self.file(*names).exists()

    def file(self, name: str, stem: str) -> Path:
        """Where an image's mask is."""
        return Path(self.options.masks.replace("{name}", name).replace("{stem}", stem)).expanduser()

    def name(self, index: int) -> str | None:
        """The image's own."""
        return self.images.name(index)

    def __getitem__(self, index: int) -> Item:
        item = self.images[index]
        return replace(item, regions=partial(self.regions, item.id))

    def regions(self, id: str) -> Regions | None:
        """What lies where in the image of that id; None where there are neither boxes nor a mask of it. Raises DataError for a mask that
        cannot be read."""
        names = [id, *names_of(id)]
        mask = self.mask(id, *names[1:]) if self.options.masks else None
        if self.boxes is None:
            return None if mask is None else Regions(mask)
        rows = next((self.boxes.of[name] for name in names if name in self.boxes.of), [])
        if mask is None and not rows:
            return None
        boxes = torch.tensor([(top, left, height, width) for left, top, width, height, _ in rows], dtype=torch.int64)
        return Regions(
            mask,
            boxes.view(-1, 4),
            torch.tensor([number for *_, number in rows], dtype=torch.int64),
            self.boxes.classes,
        )

    def mask(self, id: str, name: str, stem: str) -> torch.Tensor | None:
        """Class numbers (H, W) from the file of the image's name, or None where it is not there; of the same frame and region, where the
        image is one of a file."""
        file = self.file(name, stem)
        if not file.exists():
            return None
        found = PART.match(id)
        frame, region = (found["frame"], found["region"]) if found else (None, None)
        box = tuple(map(int, region.split(","))) if region else None
        try:
            return classes_of(from_plane(self.reader.read_mask(file, int(frame or 0), box)), file)  # type: ignore[arg-type]
        except DataError as error:
            raise DataError(str(error) if str(file) in str(error) else f"{file}: {error}") from None
        except Exception as error:  # decoders raise whatever they stumble over
            raise DataError(f"{file}: cannot be read as a mask: {error}") from None


def names_of(id: str) -> tuple[str, str]:
    """An image's id without frame, region and ending; and that without its folders."""
    found = PART.match(id)
    path = PurePosixPath(found["file"] if found else id)
    bare = (
        path.name[: -len(ending)]
        if (ending := "".join(path.suffixes[-2:]) if path.name.endswith(".gz") else path.suffix)
        else path.name
    )
    return str(path.with_name(bare)) if bare else str(path), bare
