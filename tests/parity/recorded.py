"""Serves recorded crops."""

import torch
from safetensors.torch import load_file

from dinomx_core.training.contracts import Augmentation, Dataset
from dinomx_core.training.flow import Crop, Item
from dinomx_core.training.streams import Stream
from tests.parity.plugin import Recorded


class RecordedData(Dataset):
    """Items are numbers; the augmentation knows what they stand for."""

    def __init__(self, options: Recorded):
        crops = load_file(options.path)["crops"]
        self.count = crops.shape[0] * crops.shape[2]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Item:
        return Item(torch.empty(0), id=str(index))


class RecordedCrops(Augmentation):
    """Item number -> the crops of its step and slot."""

    def __init__(self, options: Recorded, channels: int):
        self.crops = load_file(options.path)["crops"]

    def __call__(self, item: Item, stream: Stream) -> dict[str, list[Crop]]:
        step, slot = divmod(int(item.id), self.crops.shape[2])
        crops = [Crop(pixels) for pixels in self.crops[step, :, slot]]
        return {"global": crops[:2], "local": crops[2:]} if len(crops) > 2 else {"global": crops}
