"""torch part of `planes`."""

import torch
from torch.nn import functional as F

from dinomx_core.training.contracts import Dataset
from dinomx_core.training.flow import Item


class PlanesData(Dataset):
    """Coarse noise, made smooth; no labels."""

    def __init__(self, options):
        self.options = options

    def __len__(self):
        return self.options.count

    def __getitem__(self, index):
        coarse = torch.rand(1, self.options.channels, 4, 4, generator=torch.Generator().manual_seed(index))
        return Item(F.interpolate(coarse, size=(20, 20), mode="bilinear")[0], id=str(index))
