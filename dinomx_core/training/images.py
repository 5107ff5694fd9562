"""Arrays and images -> (C, H, W) tensors in their own numbers."""

import numpy as np
import torch
from PIL import Image

from dinomx_core.builtin import image_reader
from dinomx_core.declare.reading import Plane
from dinomx_core.errors import DataError
from dinomx_core.training.pixels import grey, to_float


def from_plane(plane: Plane) -> torch.Tensor:
    """What a reader read -> (C, H, W) as items have it: uint8 and uint16 as they are, truth values as 0 and 255, all other numbers as
    float32. Raises DataError for pixels that are no numbers."""
    pixels = plane.pixels
    if pixels.ndim != 3:
        raise DataError(f"pixels have {pixels.ndim} dimensions, not channels, rows and columns")
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * 255
    elif pixels.dtype.kind not in "uif":
        raise DataError(f"pixels of type {pixels.dtype} are no numbers; convert to whole numbers or floats")
    elif pixels.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        pixels = pixels.astype(np.float32)
    native = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("="))
    return torch.from_numpy(native if native.flags.writeable else native.copy())


def from_array(array: np.ndarray) -> torch.Tensor:
    """(H, W) or (H, W, C) -> (C, H, W). Raises DataError for other shapes and types."""
    return from_plane(Plane(image_reader.from_array(array)))


def from_pillow(image: Image.Image) -> torch.Tensor:
    """A Pillow image as (C, H, W) of its own depth, turned as its EXIF orientation says, without its alpha channel."""
    return from_plane(Plane(image_reader.from_pillow(image)))


def to_channels(image: torch.Tensor, channels: int) -> torch.Tensor:
    """Grey to three equal channels, or three to their luma; other mixes raise DataError."""
    have = image.shape[0]
    if have == channels:
        return image
    if have == 1:
        return image.expand(channels, -1, -1)
    if have == 3 and channels == 1:
        full = {torch.uint8: 255.0, torch.uint16: 65535.0}.get(image.dtype, 1.0)
        return grey(to_float(image)).mul(full).round_().to(image.dtype) if full > 1 else grey(image)
    raise DataError(f"an image of {have} channels cannot become one of {channels}")
