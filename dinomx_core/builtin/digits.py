"""scikit-learn's handwritten digits."""

import torch
from sklearn.datasets import load_digits

from dinomx_core.builtin.data_options import Digits
from dinomx_core.training.contracts import Dataset
from dinomx_core.training.flow import Item


class DigitsData(Dataset):
    """8 x 8 px images whose 17 grey levels are spread over uint8."""

    def __init__(self, options: Digits):
        images, labels = load_digits(return_X_y=True)
        test = torch.arange(len(images)) % 5 == 4
        keep = {"train": ~test, "test": test, "all": torch.ones_like(test)}[options.split]
        pixels = torch.from_numpy(images).view(-1, 1, 8, 8) * (255 / 16)
        self.images, self.labels = pixels.round().to(torch.uint8)[keep], torch.from_numpy(labels)[keep]
        self.numbers = keep.nonzero()[:, 0]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Item:
        return Item(self.images[index], int(self.labels[index]), self.name(index))

    def name(self, index: int) -> str:
        """By its number among all digits."""
        return f"digit-{int(self.numbers[index])}"
