"""What flows between the parts of a run. Shapes: B images, V crops a view, C channels, N patches, T tokens, D width."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from dinomx_core.training.regions import Regions


Label = int | tuple[int, ...] | float


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or in float64 if it is."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


@dataclass
class Tokens:
    """What a backbone returns, with each sort of token apart so that registers can never be taken for patches.

    cls (B, D) or None; registers (B, R, D); patches (B, N, D); grid (c, h, w) with N = c * h * w (c is 1 but for
    backbones with tokens a channel). by_channel (B, C, D): a vector of each channel, from backbones that see channels apart.
    """

    cls: Tensor | None
    registers: Tensor
    patches: Tensor
    grid: tuple[int, int, int]
    by_channel: Tensor | None = None

    @property
    def summary(self) -> Tensor:
        """One vector an image (B, D): the CLS token, or the patches' mean where there is none."""
        return self.patches.mean(1) if self.cls is None else self.cls

    @property
    def features(self) -> Tensor:
        """What an image is known by: its summary (B, D), or where channels are seen apart those of all channels in a row (B, C * D)."""
        return self.summary if self.by_channel is None else self.by_channel.flatten(1)

    def patches_on(self, grid: tuple[int, int, int], antialias: bool = False) -> Tensor:
        """Patches brought to another grid by bicubic interpolation (B, h * w, D)."""
        if self.grid == grid:
            return self.patches
        ours, theirs = self.grid[0], grid[0]
        maps = at_least_float32(self.patches).unflatten(1, self.grid)
        if ours != theirs:  # the mean over channels, for each channel of the other grid
            maps = maps.mean(1, keepdim=True).expand(-1, theirs, -1, -1, -1)
        if self.grid[1:] != grid[1:]:
            flat = maps.flatten(0, 1).permute(0, 3, 1, 2)
            flat = F.interpolate(flat, size=grid[1:], mode="bicubic", align_corners=False, antialias=antialias)
            maps = flat.permute(0, 2, 3, 1).unflatten(0, (-1, theirs))
        return maps.flatten(1, 3)


@dataclass
class Hidden:
    """Tokens on their way through the blocks.

    x (B, T, D); prefix: tokens before the patches; grid as in `Tokens`; context: keyword arguments for every block
    (rotary positions, for example).
    """

    x: Tensor
    prefix: int
    grid: tuple[int, int, int]
    context: dict[str, Any] = field(default_factory=dict)


def drop_masked(hidden: Hidden, mask: Tensor) -> Hidden:
    """Keep the prefix and the patches that are not masked; the grid becomes (1, 1, kept)."""
    kept = (~mask).sum(1)
    if bool((kept != kept[0]).any()):
        raise ValueError(f"masking 'drop' needs as many masked patches in every image, got {mask.sum(1).tolist()}")
    prefix, patches = hidden.x[:, : hidden.prefix], hidden.x[:, hidden.prefix :]
    patches = patches[~mask].view(len(patches), int(kept[0]), -1)
    return Hidden(torch.cat([prefix, patches], 1), hidden.prefix, (1, 1, int(kept[0])), hidden.context)


@dataclass
class Item:
    """One image of a data set.

    image (C, H, W): uint8, uint16 or float32, in the units of its file until an intensity has said what its numbers mean; then uint8 or
    uint16 over the type's whole range, or float32. label: class number, numbers of several classes (or of none), or a number; None
    where there is no label. group: what it belongs to (a patient, a plate); "" where that is not known. units and full: as
    `declare.reading.Plane` has them. channels: which of the data set's channels these are; None: all of them. regions: reads what lies
    where in it; None: nobody says (use `regions.regions_of`).
    """

    image: Tensor
    label: Label | None = None
    id: str = ""
    group: str = ""
    units: str = ""
    full: tuple[float, float] | None = None
    channels: tuple[int, ...] | None = None
    regions: Callable[[], Regions | None] | None = None


def replaced(item: Item, image: Tensor) -> Item:
    """The item with other pixels, whose numbers mean what those of any image do."""
    return replace(item, image=image, units="", full=None)


@dataclass
class Views:
    """A batch: named sets of crops.

    pixels[view] (V, B, C, H, W) normalised float32; masks[view] (V, B, N) bool, True where masked; boxes[view] (V, B, 4)
    float32: top, left, height, width of the crop in pixels of its image (negative width: flipped); labels (B,) int64,
    -1 where there is none; index (B,) int64: position in the data set; unreadable: what was wrong with images that others
    stand in for; channels[view] (B, C) int64: which of the data's channels these are, for views that have not all of them;
    placed: the share of the crops that a placement has put somewhere, by its words for it.
    """

    pixels: dict[str, Tensor]
    masks: dict[str, Tensor] = field(default_factory=dict)
    boxes: dict[str, Tensor] = field(default_factory=dict)
    labels: Tensor | None = None
    index: Tensor | None = None
    unreadable: tuple[str, ...] = ()
    channels: dict[str, Tensor] = field(default_factory=dict)
    placed: dict[str, float] = field(default_factory=dict)

    def channels_of(self, view: str) -> Tensor | None:
        """Which channels a view's images have (V * B, C); None: all of them."""
        found = self.channels.get(view)
        return None if found is None else found.repeat(len(self.pixels[view]), 1)

    def to(self, device: torch.device, kind: torch.dtype = torch.float32) -> Views:
        """The same batch on a device, its pixels as numbers of a type."""
        ahead = device.type == "cuda"  # the loader pins memory for it; elsewhere a copy must be done before it is read
        move = lambda tensors: {k: t.to(device, non_blocking=ahead) for k, t in tensors.items()}  # noqa: E731
        labels = None if self.labels is None else self.labels.to(device, non_blocking=ahead)
        pixels = {name: tensor.to(kind) for name, tensor in move(self.pixels).items()}
        channels = move(self.channels)
        return Views(
            pixels, move(self.masks), move(self.boxes), labels, self.index, self.unreadable, channels, self.placed
        )

    def pin_memory(self) -> Views:
        """For the loader: the same batch in page-locked memory."""
        pin = lambda tensors: {k: t.pin_memory() for k, t in tensors.items()}  # noqa: E731
        labels = None if self.labels is None else self.labels.pin_memory()
        return Views(
            pin(self.pixels), pin(self.masks), pin(self.boxes), labels, self.index, self.unreadable, pin(self.channels),
            self.placed,
        )  # fmt: skip


@dataclass
class Crop:
    """One crop of one image: pixels (C, H, W) normalised, where it came from (see `Views.boxes`), which of the data's channels it has
    (None: all), and how a placement says it was put there."""

    pixels: Tensor
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    mask: Tensor | None = None
    channels: tuple[int, ...] | None = None
    placed: str = ""
