"""Crops show what their boxes say, and the contract of augmentations."""

import torch

from dinomx_core.testing import conformance
from dinomx_core.training.flow import Item
from dinomx_core.training.streams import Stream
from dinomx_my_name import plugin
from dinomx_my_name.augmentation import MyNameAugmentation

test_conforms = conformance("dinomx-my-name")


def test_a_whole_image_is_flipped_as_its_box_says():
    image = torch.arange(64, dtype=torch.uint8).view(1, 8, 8)
    crop = MyNameAugmentation(plugin.MyName(size=8, smallest=1.0), 1)(Item(image), Stream(3))["global"][0]
    flipped = [axis for axis, side in ((-2, crop.box[2]), (-1, crop.box[3])) if side < 0]
    assert torch.equal(crop.pixels, (torch.flip(image, flipped) / 255 - 0.5) / 0.25)
