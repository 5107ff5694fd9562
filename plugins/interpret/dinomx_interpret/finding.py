"""Boxes of one object an image, without labels: from attention, and from two graphs on keys of patches. Maps are (h, w) of patches."""

import numpy as np
import torch
from scipy import linalg, ndimage
from torch import Tensor
from torch.nn import functional as F

Box = tuple[int, int, int, int]  # top, left, height, width

SEEDS = 100  # patches of low degree that LOST spreads to at most
LINK, NO_LINK = 0.2, 1e-5  # cosine above which two patches are linked in TokenCut's graph, and the weight of no link


def brightest(map: Tensor, mass: float) -> Tensor:
    """(h, w) bool: the fewest patches that hold a share of the map's mass (Caron et al. 2021, figure 3)."""
    flat = map.flatten().double()
    order = flat.argsort(descending=True, stable=True)
    before = flat[order].cumsum(0) - flat[order]
    kept = torch.zeros_like(flat, dtype=torch.bool)
    kept[order] = before < mass * flat.sum()
    return kept.view(map.shape)


def part_with(patches: Tensor, row: int, column: int) -> Tensor:
    """(h, w) bool: the connected part (4 neighbours) of a map of patches that a patch belongs to; that patch alone where it is not set."""
    parts, _ = ndimage.label(patches.numpy())
    if not parts[row, column]:
        alone = torch.zeros_like(patches)
        alone[row, column] = True
        return alone
    return torch.from_numpy(parts == parts[row, column])


def box_of(patches: Tensor) -> Box:
    """The box around the patches that are set, one at the least."""
    rows, columns = (np.flatnonzero(patches.any(axis).numpy()) for axis in (1, 0))
    return int(rows[0]), int(columns[0]), int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)


def from_attention(map: Tensor, mass: float) -> Tensor:
    """The connected part of the brightest patches that the brightest one belongs to."""
    row, column = divmod(int(map.argmax()), map.shape[1])
    return part_with(brightest(map, mass), row, column)


def lost(keys: Tensor) -> Tensor:
    """The object of LOST (Siméoni et al. 2021) on the last block's keys of patches (h, w, D): the patch that resembles the fewest is a
    seed, patches of few resemblances that resemble it are more of them, and what resembles these together is the object."""
    height, width = keys.shape[:2]
    flat = keys.flatten(0, 1).float()
    alike = flat @ flat.T
    order = (alike > 0).sum(1).argsort(stable=True)
    seed = int(order[0])
    few = order[:SEEDS]
    seeds = few[alike[seed, few] > 0]
    found = alike[:, seeds].sum(1) > 0
    return part_with(found.view(height, width), *divmod(seed, width))


def tokencut(keys: Tensor) -> Tensor:
    """The object of TokenCut (Wang et al. 2022) on the last block's keys of patches (h, w, D): the normalised cut of their graph in two;
    the side with the most decided patch is the object."""
    height, width = keys.shape[:2]
    flat = F.normalize(keys.flatten(0, 1).double(), dim=1)
    weights = torch.where(flat @ flat.T > LINK, 1.0, NO_LINK).numpy()
    scale = 1 / np.sqrt(weights.sum(1))
    # (D - W) x = e D x, as the symmetric problem of D^-1/2 W D^-1/2, whose second largest eigenvalue is 1 - the second smallest e.
    wanted = max(0, len(flat) - 2)
    _, vectors = linalg.eigh(scale[:, None] * weights * scale, subset_by_index=[wanted, wanted])
    cut = torch.from_numpy(scale * vectors[:, 0])
    side = cut > cut.mean()
    seed = int(cut.abs().argmax())
    found = side if side[seed] else ~side
    return part_with(found.view(height, width), *divmod(seed, width))
