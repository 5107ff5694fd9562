"""Image files and arrays -> (C, H, W) tensors in their own depth."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from dinomx_core.declare.reading import Plane
from dinomx_core.errors import DataError
from dinomx_core.training.pixels import grey, to_float


def to_tensor(array: np.ndarray) -> torch.Tensor:
    """(H, W) or (H, W, C) of uint8, uint16, bool or float -> (C, H, W) of uint8, uint16 or float32. Raises DataError for other types."""
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3:
        raise DataError(f"an image has 2 or 3 dimensions, not {array.ndim}")
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif array.dtype.kind == "f":
        array = array.astype(np.float32)
    elif array.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"pixels of type {array.dtype} have no declared range; convert to uint8, uint16 or float over 0..1"
        )
    return torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1)


def read_image(path: Path) -> torch.Tensor:
    """A file as (C, H, W), turned as its EXIF orientation says: uint8, uint16 for 16-bit grey; of 16-bit colour the upper 8 bits,
    of several pages the first, without its alpha channel. Raises DataError naming the file when it cannot be read."""
    try:
        with Image.open(path) as image:
            return from_pillow(ImageOps.exif_transpose(image))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except Exception as error:  # decoders raise whatever they stumble over
        raise DataError(f"{path}: cannot be read as an image: {error}") from None


def from_pillow(image: Image.Image) -> torch.Tensor:
    """A Pillow image as (C, H, W) of its own depth. Raises DataError for 32-bit pixels outside a declared range."""
    if image.mode in ("I;16", "I;16L", "I;16B"):
        return to_tensor(np.asarray(image).astype(np.uint16))
    if image.mode in ("I", "F"):
        pixels = np.array(image)
        if not np.isfinite(pixels).all():
            raise DataError("holds pixels that are not finite numbers")
        if pixels.size and (pixels.min() < 0 or pixels.max() > (65535 if image.mode == "I" else 1)):
            raise DataError(
                f"32-bit pixels from {pixels.min()} to {pixels.max()} have no declared range; "
                "convert to 8 or 16 bit, or to floats over 0..1"
            )
        return to_tensor(pixels.astype(np.uint16 if image.mode == "I" else np.float32))
    if image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode in ("1", "LA", "La") else "RGB")
    return to_tensor(np.array(image))


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
