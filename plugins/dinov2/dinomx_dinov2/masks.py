"""Block masking."""

import math
from itertools import pairwise
from random import Random

import torch
from torch import Tensor

from dinomx_core.training.contracts import Masking
from dinomx_dinov2 import plugin

TRIES = 10


class BlockMasking(Masking):
    """Rectangles of patches until a crop's count is reached (Bao et al. 2022, algorithm 1), with counts spread over the step."""

    def __init__(self, options: "plugin.Blocks"):
        self.options = options
        self.log_aspect = (math.log(options.aspect[0]), math.log(options.aspect[1]))

    def counts(self, crops: int, patches: int, rng: Random) -> list[int]:
        """Of the masked crops, number i of n has a ratio out of the i-th of n equal parts of the range; in random order."""
        low, high = self.options.ratio
        masked = int(crops * self.options.share)
        edges = [low + (high - low) * i / masked for i in range(masked + 1)] if masked else []
        ratios = [upper if self.options.exact else rng.uniform(lower, upper) for lower, upper in pairwise(edges)]
        # A share of a whole number of patches must not lose one to rounding: 0.3 * 10 is 2.9999999999999996.
        counts = [int(patches * ratio + 1e-9) for ratio in ratios] + [0] * (crops - masked)
        rng.shuffle(counts)
        return counts

    def mask(self, count: int, grid: tuple[int, int], rng: Random) -> Tensor:
        """Rows x columns, flat."""
        mask = torch.zeros(grid, dtype=torch.bool)
        largest = int(self.options.largest * mask.numel())
        masked = 0
        while masked < count:
            added = self._block(mask, min(count - masked, largest), rng)
            if not added:
                break
            masked += added
        flat = mask.flatten()
        if self.options.exact and masked < count:
            free = (~flat).nonzero().flatten().tolist()
            flat[rng.sample(free, count - masked)] = True
        return flat

    def _block(self, mask: Tensor, most: int, rng: Random) -> int:
        """Add one block of at most `most` patches that were not masked yet; returns how many they are, 0 when none was found."""
        rows, columns = mask.shape
        for _ in range(TRIES):
            area = rng.uniform(self.options.smallest, most)
            aspect = math.exp(rng.uniform(*self.log_aspect))
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if not (height < rows and width < columns):
                continue
            top, left = rng.randint(0, rows - height), rng.randint(0, columns - width)
            part = mask[top : top + height, left : left + width]
            added = height * width - int(part.sum())
            if 0 < added <= most:
                part.fill_(True)
                return added
        return 0
