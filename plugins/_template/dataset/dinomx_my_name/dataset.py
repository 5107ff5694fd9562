"""The data set."""

from random import Random

import torch

from dinomx_core.training.contracts import Dataset
from dinomx_core.training.flow import Item
from dinomx_my_name import plugin


class MyNameData(Dataset):
    """Reading is stateless: any worker may read any image, in any order, and always gets the same."""

    def __init__(self, options: "plugin.MyName"):
        self.options = options

    def __len__(self) -> int:
        return self.options.count

    def __getitem__(self, index: int) -> Item:
        """A file that cannot be read raises DataError here, and the next image stands in for it."""
        rng, side, label = Random(index), self.options.size, index % 2
        stripes = (torch.arange(side) // rng.randint(1, 4) % 2 * 255).to(torch.uint8)
        image = stripes.expand(side, side) if label else stripes[:, None].expand(side, side)
        return Item(image[None], label, id=f"stripes-{index}")
