"""Write 160 px PNGs for the speed workloads: smoothed noise at several scales and a few discs, the same on every machine.

python benchmarks/make_images.py DIR [COUNT] [SIZE]
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image


def picture(rng: np.random.Generator, size: int) -> Image.Image:
    """One image with structure from coarse to fine."""
    total = np.zeros((size, size, 3))
    for scale in (4, 10, 24, 60, size):
        small = Image.fromarray(rng.integers(0, 256, (scale, scale, 3), dtype=np.uint8))
        total += np.asarray(small.resize((size, size), Image.Resampling.BICUBIC), float) / scale**0.5
    y, x = np.mgrid[:size, :size]
    for _ in range(int(rng.integers(1, 5))):
        cy, cx, radius = [*rng.uniform(0, size, 2).tolist(), rng.uniform(size / 16, size / 4)]
        total[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = rng.uniform(0, total.max(), 3)
    return Image.fromarray((255 * (total - total.min()) / np.ptp(total)).astype(np.uint8))


def main(folder: str, count: int = 512, size: int = 160) -> None:
    """Write them."""
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture(np.random.default_rng(number), size).save(root / f"{number:04}.png")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1], *map(int, sys.argv[2:]))
