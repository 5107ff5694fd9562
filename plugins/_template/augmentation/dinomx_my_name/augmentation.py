"""The augmentation."""

import torch

from dinomx_core.training import pixels as px
from dinomx_core.training.contracts import Augmentation
from dinomx_core.training.flow import Crop, Item
from dinomx_core.training.streams import Stream
from dinomx_my_name import plugin


class MyNameAugmentation(Augmentation):
    """Every draw is from the sample's stream: the same seed gives the same crops with any number of workers."""

    def __init__(self, options: "plugin.MyName", channels: int):
        self.options = options

    def __call__(self, item: Item, stream: Stream) -> dict[str, list[Crop]]:
        """The crops of one image."""
        return {"global": [self.crop(item, stream) for _ in range(2)]}

    def crop(self, item: Item, stream: Stream) -> Crop:
        """One crop; a negative side of its box says that it is flipped."""
        o, (height, width), rng = self.options, item.image.shape[-2:], stream.purpose("global box")
        side = max(1, round(min(height, width) * rng.uniform(o.smallest, 1.0)))
        top, left = rng.randint(0, height - side), rng.randint(0, width - side)
        cut = px.to_float(px.resize(item.image[:, top : top + side, left : left + side], (o.size, o.size)))
        down, across = rng.choice((1, -1)), rng.choice((1, -1))
        cut = torch.flip(cut, [axis for axis, way in ((-2, down), (-1, across)) if way < 0])
        cut = px.normalise(cut, px.chosen(o.mean, item.channels), px.chosen(o.std, item.channels))
        return Crop(cut, (top, left, side * down, side * across), channels=item.channels)
