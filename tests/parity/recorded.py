"""Serves recorded crops."""

import torch
from safetensors.torch import load_file
from torch import Tensor

from dinomx_core.training.contracts import Augmentation, Dataset
from dinomx_core.training.flow import Crop, Item
from dinomx_core.training.streams import Stream
from tests.parity.plugin import Recorded, sizes

NAMES = {"global": "global_crops", "local": "local_crops", "gram": "gram_teacher_crops"}


class RecordedData(Dataset):
    """Items are numbers; the augmentation knows what they stand for."""

    def __init__(self, options: Recorded):
        found = sizes(options.path)
        self.count = found.steps * found.batch

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Item:
        return Item(torch.empty(0, dtype=torch.uint8), id=str(index))


class RecordedCrops(Augmentation):
    """Item number -> the crops of its step and slot."""

    def __init__(self, options: Recorded, channels: int):
        self.tensors, self.sizes = load_file(options.path), sizes(options.path)

    def __call__(self, item: Item, stream: Stream) -> dict[str, list[Crop]]:
        step, slot = divmod(int(item.id), self.sizes.batch)
        return {view.name: self.crops(view.name, step, slot) for view in self.sizes.views}

    def crops(self, view: str, step: int, slot: int) -> list[Crop]:
        """One image's crops of a view."""
        if "crops" in self.tensors:
            crops = self.tensors["crops"][step, :, slot]
            return [Crop(pixels) for pixels in (crops[:2] if view == "global" else crops[2:])]
        pixels = self.of_image(self.tensors[f"step{step}/{NAMES[view]}"], slot)
        if view != "global":
            return [Crop(crop) for crop in pixels]
        masks = self.of_image(self.tensors[f"step{step}/masks"], slot)
        return [Crop(crop, mask=mask) for crop, mask in zip(pixels, masks)]

    def of_image(self, rows: Tensor, slot: int) -> Tensor:
        """The rows of one image among (crops x images, ...)."""
        return rows[slot :: self.sizes.batch]
