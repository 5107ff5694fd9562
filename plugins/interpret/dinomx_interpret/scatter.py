"""Points in a plane with the colours of their classes and pictures of some, drawn with matplotlib."""

import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
from PIL import Image

from dinomx_interpret.panels import palette

THUMBNAIL, THUMBNAILS = 40, 60  # pixels of the longer side; at most so many
APART = 0.055  # of the plane's side: how far thumbnails lie from each other at least
CLASSES = 19  # that have colours of their own, the most frequent ones
OTHERS = "other classes"


@attrs.frozen
class Theme:
    """Colours of a page."""

    paper: str
    ink: str
    faint: str


LIGHT, DARK = Theme("#ffffff", "#1b1f24", "#8a949e"), Theme("#14171a", "#e4e8ec", "#6d7882")


def draw(
    places: np.ndarray, names: Sequence[str], pictures: Sequence[Image.Image], axes: tuple[str, str], theme: Theme
) -> bytes:
    """A PNG: every image a point of its class's colour ("": no classes), and some of them as pictures in a frame of it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    figure = Figure(figsize=(10, 7), dpi=110, facecolor=theme.paper, layout="constrained")
    FigureCanvasAgg(figure)
    plane = figure.add_subplot(facecolor=theme.paper)
    classes = shown_classes(names)
    colours: dict[str, Any] = {name: tuple(row / 255) for name, row in zip(classes, palette(max(1, len(classes))))}
    colours.setdefault(OTHERS, theme.faint)
    groups = [name if name in colours else OTHERS for name in names]
    handles, told = [], []
    for name in [*classes, *([OTHERS] if OTHERS in groups and OTHERS not in classes else [])]:
        of = np.array([group == name for group in groups])
        points = plane.scatter(places[of, 0], places[of, 1], 16, color=[colours[name]], linewidths=0, alpha=0.85)
        handles.append(points)
        told.append(f"{name} ({of.sum()})")
    for number in spread_out(places):
        box = OffsetImage(np.asarray(pictures[number]), zoom=72 / 110)
        frame = {"edgecolor": colours[groups[number]], "facecolor": theme.paper, "linewidth": 1.6}
        plane.add_artist(AnnotationBbox(box, tuple(places[number]), bboxprops=frame, pad=0.12, zorder=3))
    plane.set_xlabel(axes[0], color=theme.ink)
    plane.set_ylabel(axes[1], color=theme.ink)
    plane.margins(0.08)
    plane.tick_params(colors=theme.faint, labelsize=8)
    for spine in plane.spines.values():
        spine.set_color(theme.faint)
    if any(names):
        blank = [str(number) for number in range(len(told))]  # names that begin with _ would be left out
        legend = figure.legend(
            handles, blank, loc="outside right upper", frameon=False, labelcolor=theme.ink, fontsize=9
        )
        for handle, text, name in zip(legend.legend_handles, legend.get_texts(), told):
            handle.set_sizes([40])  # type: ignore[union-attr]
            text.set_parse_math(False)  # $ is a letter
            text.set_text(name)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", facecolor=theme.paper)
    return stream.getvalue()


def shown_classes(names: Sequence[str]) -> list[str]:
    """The most frequent classes, sorted by name."""
    return sorted(name for name, _ in Counter(names).most_common(CLASSES))


def spread_out(places: np.ndarray) -> list[int]:
    """Some points that lie apart, each the farthest from those before it, the first nearest to the middle."""
    low, high = places.min(0), places.max(0)
    scaled = (places - low) / np.maximum(high - low, 1e-12)
    taken = [int(((scaled - 0.5) ** 2).sum(1).argmin())]
    distance = np.linalg.norm(scaled - scaled[taken[0]], axis=1)
    while len(taken) < min(THUMBNAILS, len(places)) and distance.max() > APART:
        taken.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(scaled - scaled[taken[-1]], axis=1))
    return taken
