"""Masks of several target blocks."""

import math
from random import Random

import torch
from torch import Tensor

from dinomx_core.training.contracts import Masking
from dinomx_ijepa import plugin


class MultiBlockMasking(Masking):
    """Rectangles of one area anywhere in the grid. A step has one count, since patches can only leave the student's sequence where every
    image loses as many: the last block is cut short where the blocks cover more, and they grow at their edges where they cover less."""

    def __init__(self, options: "plugin.MultiBlock"):
        self.options = options

    def counts(self, crops: int, patches: int, rng: Random) -> list[int]:
        """The same for every crop."""
        return [plugin.count_of(self.options, patches, rng.uniform(*self.options.scale))] * crops

    def mask(self, count: int, grid: tuple[int, int], rng: Random) -> Tensor:
        """Rows x columns, flat, exactly `count` of them masked."""
        mask = torch.zeros(grid, dtype=torch.bool)
        area = mask.numel() * (1 - (1 - count / mask.numel()) ** (1 / self.options.blocks))
        for _ in range(self.options.blocks):
            rows, columns = self.block(area, grid, rng)
            free = [(row, column) for row in rows for column in columns if not mask[row, column]]
            for row, column in free[: count - int(mask.sum())]:
                mask[row, column] = True
        while missing := count - int(mask.sum()):
            edge = touching(mask).flatten().nonzero().flatten().tolist()
            mask.view(-1)[rng.sample(edge, min(missing, len(edge)))] = True
        return mask.flatten()

    def block(self, area: float, grid: tuple[int, int], rng: Random) -> tuple[range, range]:
        """Rows and columns of a block of about `area` patches."""
        aspect = math.exp(rng.uniform(*map(math.log, self.options.aspect)))
        sides = (math.sqrt(area * aspect), math.sqrt(area / aspect))
        height, width = (min(most, max(1, round(side))) for side, most in zip(sides, grid))
        top, left = rng.randint(0, grid[0] - height), rng.randint(0, grid[1] - width)
        return range(top, top + height), range(left, left + width)


def touching(mask: Tensor) -> Tensor:
    """Places (rows, columns) bool that are free and have a masked one beside, above or below them."""
    found = torch.zeros_like(mask)
    found[1:] |= mask[:-1]
    found[:-1] |= mask[1:]
    found[:, 1:] |= mask[:, :-1]
    found[:, :-1] |= mask[:, 1:]
    return found & ~mask
