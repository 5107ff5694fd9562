"""Maps as small pictures of a pixel a patch, with what is to be read beside them."""

from collections.abc import Iterator, Sequence

import attrs
import numpy as np

from dinomx_core.training.colours import painted
from dinomx_interpret import features
from dinomx_interpret.seeing import Seen

HEAT, NEAR = "inferno", "viridis"  # of attention, and of similarity
USUAL = 0.99  # of the patches: what the others have
BEHIND = (0.36, 0.36, 0.38)  # the grey of what is no foreground
PCA_RULE = "similar colours: similar patches, in all images; grey: behind"
CLUSTER_RULE = "a colour is the same cluster in all images"
FEW = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00", "#cc79a7", "#0072b2", "#999999")  # Okabe and Ito's


@attrs.frozen(eq=False)
class Panel:
    """A map of an image: a name for its file, a title, what its numbers come to, how it is read, and colours (h, w, 3) uint8. legend:
    texts with colours of their own, "#rrggbb". clipped: whether some patches are beyond the end of the scale."""

    name: str
    title: str
    told: str
    rule: str
    colours: np.ndarray
    legend: tuple[tuple[str, str], ...] = ()
    clipped: bool = False


def palette(count: int) -> np.ndarray:
    """(count, 3) uint8, colours that can be told apart, also by people who see fewer of them where there are few."""
    if count <= len(FEW):
        return np.array([[int(c[n : n + 2], 16) for n in (1, 3, 5)] for c in FEW[:count]], np.uint8)
    from matplotlib import colormaps

    table = colormaps["tab10" if count <= 10 else "tab20"]
    return (table(np.arange(count))[:, :3] * 255).round().astype(np.uint8)


def heat(name: str, title: str, values: np.ndarray) -> Panel:
    """A map of attention, from none to its own largest value; where a few patches have far more than all others, as in models without
    registers, up to twice what the next have."""
    share, most, usual = float(values.sum()), float(values.max()), float(np.quantile(values, USUAL))
    top = 2 * usual if 0 < 2 * usual < most else most
    even = share / values.size
    told, rule = f"{100 * share:.3g}% goes to patches", "black: none; brightest: the most of this map"
    told += f", at most {most / even:.3g} times the even share" if even else ""
    if top < most:
        over = int((values > top).sum())
        rule = (
            f"black: none; brightest: {top / even:.3g} times the even share and more, {over} of {values.size} patches"
        )
    return Panel(name, title, told, rule, painted(values, 0, top, HEAT), clipped=top < most)


def attention(seen: Seen, block: int) -> Iterator[Panel]:
    """Maps of an image's attention: the mean over heads, the rollout, each head, each register. block: from 1 on."""
    if seen.attended is None:
        return
    found = seen.attended
    yield heat("attention-mean", f"Attention, mean of {len(found.heads)} heads, block {block}", found.heads.mean(0))
    yield heat("rollout", f"Attention rollout, blocks 1 to {block}", found.rollout)
    for number, values in enumerate(found.heads, 1):
        yield heat(f"attention-head-{number}", f"Head {number}", values)
    for number, values in enumerate(found.registers, 1):
        yield heat(f"register-{number}", f"Register {number}, mean of heads", values)


@attrs.frozen(eq=False)
class Shared:
    """What is found over the patches of all images: which are foreground, their colours, clusters, and features for the page. grids:
    of the images."""

    grids: tuple[tuple[int, int], ...]
    front: np.ndarray
    colours: np.ndarray
    clusters: np.ndarray
    codes: features.Codes

    @classmethod
    def of(cls, images: Sequence[Seen], clusters: int) -> "Shared":
        """Of all images of a call."""
        rows = np.concatenate([seen.patches for seen in images])
        edges = np.concatenate([features.border(seen.grid) for seen in images])
        front = features.foreground(rows, edges)
        grids = tuple(seen.grid for seen in images)
        return cls(grids, front, features.colours(rows, front), features.clusters(rows, clusters), features.coded(rows))

    def panels(self) -> list[list[Panel]]:
        """Components and clusters of each image."""
        count = int(self.clusters.max()) + 1
        known = palette(count)
        parts = zip(*(features.split(rows, self.grids) for rows in (self.front, self.colours, self.clusters)))
        result = []
        for front, colours, numbers in parts:
            rgb = np.where(np.isnan(colours), BEHIND, colours)
            pca = Panel(
                "pca", "Principal components", f"{100 * front.mean():.3g}% of the patches are foreground",
                PCA_RULE,
                (rgb * 255).round().astype(np.uint8),
            )  # fmt: skip
            shares = np.bincount(numbers.ravel(), minlength=count) / numbers.size
            legend = tuple(
                (f"{100 * share:.3g}%", "#{:02x}{:02x}{:02x}".format(*known[n]))
                for n, share in enumerate(shares)
                if share
            )
            result.append([pca, Panel("clusters", f"{count} clusters", "", CLUSTER_RULE, known[numbers], legend)])
        return result


def similar(images: Sequence[Seen], places: Sequence[int]) -> list[Panel]:
    """Each image's similarity to its own patch of that number, on one scale."""
    maps = [features.similarity(seen.patches, n).reshape(seen.grid) for seen, n in zip(images, places)]
    low = min(float(values.min()) for values in maps)
    panels = []
    for values, number in zip(maps, places):
        row, column = divmod(number, values.shape[1])
        title = f"Similarity to the patch of row {row}, column {column}"
        told = f"cosine from {values.min():.2f} to 1.00"
        rule = f"dark: {low:.2f}; brightest: 1.00, the framed patch itself"
        panels.append(Panel("similarity", title, told, rule, painted(values, low, 1.0, NEAR)))
    return panels
