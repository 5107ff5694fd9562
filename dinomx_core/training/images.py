"""Image files and arrays -> (C, H, W) tensors in their own depth."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dinomx_core.builtin import image_reader
from dinomx_core.errors import DataError
from dinomx_core.training.pixels import grey, to_float


def to_tensor(array: np.ndarray) -> torch.Tensor:
    """(H, W) or (H, W, C) of uint8, uint16, bool or float -> (C, H, W) of uint8, uint16 or float32. Raises DataError for other types."""
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3:
        raise DataError(f"an image has 2 or 3 dimensions, not {array.ndim}")
    return planes_to_tensor(array.transpose(2, 0, 1))


def planes_to_tensor(planes: np.ndarray) -> torch.Tensor:
    """The same for (C, H, W)."""
    if planes.dtype == np.bool_:
        planes = planes.astype(np.uint8) * 255
    elif planes.dtype.kind == "f":
        planes = planes.astype(np.float32)
    elif planes.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"pixels of type {planes.dtype} have no declared range; convert to uint8, uint16 or float over 0..1"
        )
    return torch.from_numpy(np.ascontiguousarray(planes))


def read_image(path: Path) -> torch.Tensor:
    """A file as (C, H, W), turned as its EXIF orientation says: uint8, uint16 or float32 over 0..1, without its alpha channel. Raises
    DataError naming the file when it cannot be read or its numbers have no declared range."""
    try:
        return planes_to_tensor(in_range(image_reader.read_pixels(path)))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def from_pillow(image: Image.Image) -> torch.Tensor:
    """A Pillow image as (C, H, W) of its own depth. Raises DataError for 32-bit pixels outside a declared range."""
    return planes_to_tensor(in_range(image_reader.from_pillow(image)))


def in_range(planes: np.ndarray) -> np.ndarray:
    """32-bit integers that are 16-bit ones, and floats over 0..1; smaller types as they are. Raises DataError for other numbers."""
    if planes.dtype.itemsize < 4:
        return planes
    whole = planes.dtype.kind != "f"
    if not np.isfinite(planes).all():
        raise DataError("holds pixels that are not finite numbers")
    if planes.size and (planes.min() < 0 or planes.max() > (65535 if whole else 1)):
        raise DataError(
            f"32-bit pixels from {planes.min()} to {planes.max()} have no declared range; "
            "convert to 8 or 16 bit, or to floats over 0..1"
        )
    return planes.astype(np.uint16) if whole else planes


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
