"""torch parts of `views`."""

import torch

from dinomx_core.training import pixels as px
from dinomx_core.training.contracts import Augmentation, Dataset, Intensity, Masking, Placement
from dinomx_core.training.flow import Crop, Item, replaced


class Unsent:
    """What all of them keep; `pickles` is what no worker can get."""

    def __init__(self, options, *context):
        self.fault, self.count = options.fault, 0
        if self.fault == "pickles":
            self.function = lambda: None


class FaultyCrops(Unsent, Augmentation):
    """Two crops."""

    def __call__(self, item, stream):
        rng = stream.purpose("box")
        self.count += 1
        return {"global": [self.crop(item, rng) for _ in range(2)]}

    def crop(self, item, rng):
        height, width = item.image.shape[-2:]
        side = min(height, width) // 2
        top, left = rng.randint(0, height - side), rng.randint(0, width - side)
        if self.fault == "seeds":
            left = int(torch.randint(width - side, ()))
        image = px.resize(item.image[:, top : top + side, left : left + side], (16, 16))
        image = image.float() / 255 if self.fault == "numbers" else px.to_float(image)
        if self.fault == "workers":
            image = image * (1 + self.count)
        return Crop(px.normalise(image, (0.3,), (0.3,)), (top, left, side, side))


class FaultyPlacement(Unsent, Placement):
    """Moves boxes to the right."""

    def __call__(self, item, view, number, box, stream):
        top, left, height, width = box
        room = item.image.shape[-1] - width
        return (top, left + 100 if self.fault == "inside" else min(left + 3, room), height, width), "moved"


class FaultyMasks(Unsent, Masking):
    """The first patches."""

    def counts(self, crops, patches, rng):
        return [patches + 1 if self.fault == "masks" else rng.randint(1, patches) for _ in range(crops)]

    def mask(self, count, grid, rng):
        return torch.arange(grid[0] * grid[1]) < count


class FaultyIntensity(Unsent, Intensity):
    """Over the type's range."""

    def __call__(self, item):
        image = px.to_float(item.image)
        return replaced(item, image * 300 if self.fault == "pixels" else image)


class FaultyData(Unsent, Dataset):
    """Twenty grey images."""

    def __len__(self):
        return 20

    def __getitem__(self, index):
        self.count += 1
        image = torch.full((1, 24, 24), index, dtype=torch.uint8)
        if self.fault == "stateless":
            image = image + self.count
        return Item(image, index % 2, "image" if self.fault == "items" else f"image-{index}")
