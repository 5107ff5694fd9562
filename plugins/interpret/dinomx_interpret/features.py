"""What patches' features say, over all images of a call: principal components, foreground, clusters, similarity. NumPy, N patches."""

from collections.abc import Sequence

import attrs
import numpy as np

from dinomx_core.training.colours import components, spread_out

FEWEST = 4  # patches that a colouring needs
EDGE = 1  # patches: the width of an image's border
STARTS = 4  # of k-means
CODED = 64  # features a patch has on the page, at most
QUERIES = 256  # patches whose similarity to all is compared with the exact one


def unit(features: np.ndarray) -> np.ndarray:
    """Rows (N, D) of length 1; a row of zeros stays one."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(lengths > 0, lengths, 1)


def border(grid: tuple[int, int]) -> np.ndarray:
    """(h * w,) bool: the patches along an image's edges."""
    inner: np.ndarray = np.zeros(grid, bool)
    inner[EDGE:-EDGE, EDGE:-EDGE] = True
    return ~inner.ravel()


def foreground(features: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(N,) bool: the patches on one side of the first principal component's mean (Oquab et al. 2023), which says two parts but not which
    is which: the one that lies less along the images' edges. All of them where a part is too small to be coloured."""
    side = components(features, 1)[:, 0] > 0
    if min(side.sum(), (~side).sum()) < FEWEST:
        return np.ones(len(side), bool)
    return side if edges[side].mean() <= edges[~side].mean() else ~side


def colours(features: np.ndarray, front: np.ndarray) -> np.ndarray:
    """(N, 3) from 0 to 1: the foreground's first three principal components as red, green and blue; NaN elsewhere."""
    result = np.full((len(features), 3), np.nan)
    result[front] = spread_out(components(features[front], 3))
    return result


def clusters(features: np.ndarray, count: int) -> np.ndarray:
    """(N,) numbers from 0 on: k-means of directions, the same at every call; 0 is the largest. Fewer where patches are not so different."""
    from sklearn.cluster import KMeans

    rows = unit(features.astype(np.float64))
    different = len(np.unique(rows.round(6), axis=0))
    found = KMeans(min(count, different), n_init=STARTS, random_state=0).fit_predict(rows)
    names, first, sizes = np.unique(found, return_index=True, return_counts=True)
    order = names[np.lexsort((first, -sizes))]
    return np.argsort(order)[found]


def similarity(features: np.ndarray, patch: int) -> np.ndarray:
    """(N,) cosine of each patch's features with those of one."""
    rows = unit(features)
    return rows @ rows[patch]


@attrs.frozen(eq=False)
class Codes:
    """Features small enough for a page: numbers (N, K) int16, times scale (K,) a row. error: the largest difference of a similarity from
    the exact one, of some patches to all."""

    numbers: np.ndarray
    scale: np.ndarray
    error: float


def coded(features: np.ndarray, dimensions: int = CODED) -> Codes:
    """The directions of patches in the few dimensions that keep most of their products: the first singular vectors, without a mean taken
    off, since that would change angles."""
    rows = unit(features.astype(np.float64))
    _, vectors = np.linalg.eigh(rows.T @ rows)
    few = unit(rows @ vectors[:, ::-1][:, :dimensions])
    scale = np.maximum(np.abs(few).max(0), 1e-12) / 32767
    numbers = np.round(few / scale).astype(np.int16)
    near = numbers * scale
    some = np.linspace(0, len(rows) - 1, min(QUERIES, len(rows))).round().astype(int)
    error = np.abs(near[some] @ near.T - rows[some] @ rows.T).max()
    return Codes(numbers, scale, float(error))


def split(values: np.ndarray, grids: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """Rows of all images -> each image's own (h, w, ...)."""
    ends = np.cumsum([height * width for height, width in grids])[:-1]
    return [part.reshape(*grid, *part.shape[1:]) for part, grid in zip(np.split(values, ends), grids)]
