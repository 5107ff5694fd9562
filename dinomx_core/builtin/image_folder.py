"""Images below a folder."""

from dinomx_core.builtin.listing import list_images
from dinomx_core.builtin.plugin import ImageFolder
from dinomx_core.training.contracts import Dataset
from dinomx_core.training.flow import Item
from dinomx_core.training.images import read_image, to_channels


class ImageFolderData(Dataset):
    """Reads one file an item, in the file's own depth."""

    def __init__(self, options: ImageFolder):
        self.listing, self.channels = list_images(options.path), options.channels

    def __len__(self) -> int:
        return len(self.listing.files)

    def __getitem__(self, index: int) -> Item:
        file, label = self.listing.files[index], self.listing.labels[index]
        image = to_channels(read_image(self.listing.root / file), self.channels)
        return Item(image, None if label < 0 else label, file)
