"""Pixel operations on tensors of any channel count. Images are (C, H, W); colour operations need exactly three channels."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow and torchvision have it


def to_float(image: Tensor) -> Tensor:
    """uint8 and uint16 over their whole range, or floats as they are -> float32."""
    if image.dtype == torch.uint8:
        return image.float().div_(255)
    if image.dtype == torch.uint16:
        return image.float().div_(65535)
    return image.float()


def normalise(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(image - mean) / std a channel; one value serves all channels. image (..., C, H, W)."""
    shift = torch.tensor(mean, dtype=image.dtype).view(-1, 1, 1)
    return (image - shift) / torch.tensor(std, dtype=image.dtype).view(-1, 1, 1)


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Antialiased bicubic resize of (C, H, W). uint8 stays uint8 (torch has a fast path for it), uint16 becomes float32 over 0..1."""
    if image.shape[-2:] == size:
        return image
    if image.dtype == torch.uint16:
        image = to_float(image)
    return F.interpolate(image[None], size=size, mode="bicubic", antialias=True)[0].clamp_(
        0, 255 if image.dtype == torch.uint8 else 1
    )


def grey(image: Tensor) -> Tensor:
    """(3, H, W) -> luma (1, H, W)."""
    red, green, blue = image.unbind(-3)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue).unsqueeze(-3)


def blend(image: Tensor, other: Tensor, factor: float) -> Tensor:
    """factor * image + (1 - factor) * other, kept within 0..1."""
    return torch.lerp(other.expand_as(image), image, factor).clamp_(0, 1)


def brightness(image: Tensor, factor: float) -> Tensor:
    """Scale towards black (factor 0) or brighter (factor above 1)."""
    return (image * factor).clamp_(0, 1)


def contrast(image: Tensor, factor: float) -> Tensor:
    """Scale around the mean luma (the mean of each channel where there are not three)."""
    mean = grey(image).mean((-3, -2, -1), keepdim=True) if image.shape[-3] == 3 else image.mean((-2, -1), keepdim=True)
    return blend(image, mean, factor)


def saturation(image: Tensor, factor: float) -> Tensor:
    """Scale around each pixel's luma; three channels."""
    return blend(image, grey(image), factor)


def hue(image: Tensor, shift: float) -> Tensor:
    """Turn the hue of HSV by `shift` of a full circle; three channels.

    Along the hue circle each channel is a trapezoid: channel n is v - v * s * clamp(min(k, 4 - k), 0, 1) with
    k = (n + 6 h) mod 6 and n = 5, 3, 1 for red, green, blue (Smith 1978).
    """
    value, which = image.max(-3)
    chroma = value - image.amin(-3)
    safe = chroma.clamp_min(1e-12)
    red, green, blue = image.unbind(-3)
    sixths = torch.where(
        which == 0, (green - blue) / safe, torch.where(which == 1, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    )
    sixths = sixths + 6 * shift
    offsets = torch.tensor([5.0, 3.0, 1.0]).view(3, 1, 1)
    k = (offsets + sixths.unsqueeze(-3)) % 6
    return value.unsqueeze(-3) - chroma.unsqueeze(-3) * torch.minimum(k, 4 - k).clamp_(0, 1)


def blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur with reflected borders; sigma in pixels, kernel out to 4 sigma but never past the border."""
    channels, height, width = image.shape[-3:]
    radius = min(max(1, int(4 * sigma + 0.5)), height - 1, width - 1)
    line = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    line = (line / line.sum()).to(image.dtype)
    # One channel a batch entry and two 1-D convolutions: much faster on a CPU than a grouped 2-D one.
    x = F.pad(image.view(channels, 1, height, width), (radius,) * 4, mode="reflect")
    x = F.conv2d(F.conv2d(x, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1))
    return x.view(channels, height, width)


def solarize(image: Tensor, threshold: float = 0.5) -> Tensor:
    """Invert what is at or above the threshold."""
    return torch.where(image >= threshold, 1 - image, image)
