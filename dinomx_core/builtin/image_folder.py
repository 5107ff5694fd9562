"""Images of files: those below a folder, and those of a manifest."""

from functools import partial

from dinomx_core.builtin.labels import label_at
from dinomx_core.builtin.picture_options import ImageFolder, ManifestFile, Pictured
from dinomx_core.builtin.picture_sets import channels_of, find_folder, find_rows
from dinomx_core.builtin.pictures import Pictures, look, read, read_plane
from dinomx_core.declare.reading import PlaneReader
from dinomx_core.errors import DataError
from dinomx_core.training.construct import construct
from dinomx_core.training.contracts import Dataset
from dinomx_core.training.flow import Item
from dinomx_core.training.images import from_plane, to_channels
from dinomx_core.training.regions import Regions, classes_of


class PicturesData(Dataset):
    """Reads an image's planes, in the files' own numbers."""

    def __init__(self, pictures: Pictures, options: Pictured):
        self.pictures = pictures
        self.reader: PlaneReader = construct(options.reader)
        self.streams = options.reader.component.streams
        self.channels = options.channels or channels_of(look(pictures, self.reader).channels, options)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Item:
        pictures, plane = self.pictures, read(self.pictures, self.reader, index)
        try:
            image = to_channels(from_plane(plane), self.channels)
        except DataError as error:
            raise DataError(f"{pictures.place(int(pictures.planes[index, 0, 0]))}: {error}") from None
        return Item(
            image, label_at(pictures.labels, index), pictures.id(index), pictures.group(index), plane.units, plane.full,
            regions=None if pictures.masks is None else partial(self.regions, index),
        )  # fmt: skip

    def name(self, index: int) -> str:
        """From the list of files."""
        return self.pictures.id(index)

    def regions(self, index: int) -> Regions | None:
        """What lies where in an image, by the numbers of its mask; None where it has none."""
        masks = self.pictures.masks
        if masks is None or masks[index, 0] < 0:
            return None
        number, frame = masks[index].tolist()
        plane = read_plane(self.pictures, self.reader.read_mask, index, number, frame)
        return Regions(classes_of(from_plane(plane), self.pictures.place(number)))

    def source(self, index: int) -> str | None:
        """The file that holds an image and nothing else, and can be read from within another; None where there is none."""
        pictures = self.pictures
        if not self.streams:
            return None
        number = int(pictures.planes[index, 0, 0])
        alone = pictures.planes.shape[1] == 1 and pictures.regions is None and not pictures.several[number]
        return str(pictures.place(number)) if alone else None


class ImageFolderData(PicturesData):
    """The images below a folder."""

    def __init__(self, options: ImageFolder):
        super().__init__(find_folder(options), options)


class ManifestData(PicturesData):
    """The images of a manifest's rows."""

    def __init__(self, options: ManifestFile):
        super().__init__(find_rows(options), options)
