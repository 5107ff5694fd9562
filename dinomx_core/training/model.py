"""A trained backbone with its preprocessing: images in, tokens out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dinomx_core.declare.components import Backbone, Preprocessing
from dinomx_core.errors import DataError
from dinomx_core.training.build import attribute
from dinomx_core.training.evaluation import make_encoder
from dinomx_core.training.flow import Item, Tokens
from dinomx_core.training.images import from_pillow, read_image, to_channels, to_tensor


class Model:
    """What `dinomx_core.load` returns.

    `backbone` is the torch module, `preprocessing` how images go in, `channels` how many the model takes.
    """

    def __init__(self, backbone: Any, preprocessing: Preprocessing, channels: int):
        self.backbone, self.preprocessing, self.channels = backbone, preprocessing, channels
        self._encoder = make_encoder(backbone, preprocessing, torch.device("cpu"))

    @classmethod
    def open(
        cls,
        folder: Path,
        component: Backbone,
        options: Any,
        channels: int,
        image_size: int,
        preprocessing: Preprocessing,
    ) -> "Model":
        """Rebuild a backbone and load an export's weights into it."""
        backbone = attribute(component)(options, component.shape(options, channels, image_size), image_size)
        backbone.load(folder)
        return cls(backbone.eval(), preprocessing, channels)

    def __call__(self, images: Sequence[str | Path | Image.Image | np.ndarray | torch.Tensor]) -> Tokens:
        """Tokens of a list of images: file paths, PIL images, arrays (H, W) or (H, W, C), or tensors (C, H, W)."""
        if isinstance(images, (str, Path)) or len(images) == 0:
            raise DataError("expected a list of one or more images")
        return self._encoder.encode([Item(to_channels(self._read(image), self.channels)) for image in images])

    @staticmethod
    def _read(image: str | Path | Image.Image | np.ndarray | torch.Tensor) -> torch.Tensor:
        if isinstance(image, torch.Tensor):
            return image
        if isinstance(image, (str, Path)):
            return read_image(Path(image))
        return from_pillow(image) if isinstance(image, Image.Image) else to_tensor(np.array(image))
