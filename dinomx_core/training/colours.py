"""Maps and features as colours. NumPy; N patches."""

from functools import cache
from itertools import permutations

import numpy as np

ENDS = (1, 99)  # percentiles that become 0 and 1
# Every fifth of the 256 colours of matplotlib's maps of these names (Smith and van der Walt, CC0); between them lie straight lines.
TABLES = {
    "inferno": (
        "000004 02020c 050417 0a0722 10092d 160b39 1e0c45 260c51 2f0a5b 380962 400a67 490b6a 510e6c 59106e 61136e 69166e "
        "71196e 781c6d 801f6c 88226a 902568 982766 a02a63 a82e5f b0315b b73557 bf3952 c63d4d cc4248 d34743 d94d3d df5337 "
        "e45a31 e9612b ed6925 f1711f f47918 f78212 f98b0b fa9407 fb9d07 fca60c fcb014 fbba1f fac42a f8cd37 f6d746 f4e156 "
        "f2ea69 f2f27d f5f992 fcffa4"
    ),
    "viridis": (
        "440154 46085c 471063 481769 481d6f 482475 472a7a 46307e 453781 433d84 414287 3f4889 3d4e8a 3a538b 38598c 355e8d "
        "33638d 31688e 2e6d8e 2c718e 2a768e 297b8e 27808e 25848e 23898e 218e8d 20928c 1f978b 1e9c89 1fa188 21a585 24aa83 "
        "28ae80 2eb37c 35b779 3dbc74 46c06f 50c46a 5ac864 65cb5e 70cf57 7cd250 89d548 95d840 a2da37 b0dd2f bddf26 cae11f "
        "d8e219 e5e419 f1e51d fde725"
    ),
}


@cache
def colour_table(name: str) -> np.ndarray:
    """(256, 3) uint8: from dark to bright."""
    known = np.array([[int(word[n : n + 2], 16) for n in (0, 2, 4)] for word in TABLES[name].split()])
    places = np.arange(0, 256, 5)
    return np.stack([np.interp(np.arange(256), places, plane) for plane in known.T], -1).round().astype(np.uint8)


def painted(values: np.ndarray, low: float, high: float, name: str) -> np.ndarray:
    """Numbers (h, w) -> (h, w, 3) uint8 from `low` to `high`; what is no number as the lowest."""
    share = np.nan_to_num((values - low) / max(high - low, 1e-12), posinf=1.0)
    return colour_table(name)[(share.clip(0, 1) * 255).round().astype(int)]


def components(features: np.ndarray, count: int) -> np.ndarray:
    """Scores (N, count) on the first principal components, each with the sign that makes its largest loading positive, as scikit-learn
    has them. Where there are fewer dimensions than asked for, zeros."""
    centred = features.astype(np.float64) - features.mean(0, dtype=np.float64)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    axes = vectors[:, ::-1][:, :count]
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), range(axes.shape[1])])
    scores = centred @ axes
    return np.pad(scores, ((0, 0), (0, count - scores.shape[1])))


def spread_out(scores: np.ndarray) -> np.ndarray:
    """Scores (N, K) -> from 0 to 1 a column, but for the outermost, which are cut off."""
    low, high = np.percentile(scores, ENDS, axis=0)
    return ((scores - low) / np.maximum(high - low, 1e-12)).clip(0, 1)


def as_before(colours: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Colours (N, 3) from 0 to 1 with the columns in the order, and each in the direction, in which they are most like earlier ones: a
    component has no sign, and which is first may change as a model learns."""
    now, then = colours - colours.mean(0), before - before.mean(0)
    scale = np.maximum(np.outer(np.linalg.norm(now, axis=0), np.linalg.norm(then, axis=0)), 1e-12)
    alike = now.T @ then / scale
    order = max(permutations(range(3)), key=lambda order: sum(abs(alike[n, k]) for k, n in enumerate(order)))
    return np.stack([colours[:, n] if alike[n, k] >= 0 else 1 - colours[:, n] for k, n in enumerate(order)], 1)
