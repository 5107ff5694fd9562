"""A data set laid out by its images' features: principal components, or UMAP where it is installed."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import numpy as np
from PIL import Image

from dinomx_core import ConfigError, DataError, TrainingError, api
from dinomx_core.builtin.pictures import evenly
from dinomx_core.errors import Problem
from dinomx_core.training.construct import construct
from dinomx_core.training.contracts import Dataset
from dinomx_core.training.embed.images import find_images
from dinomx_core.training.embed.passes import EmbeddedImages
from dinomx_core.training.evaluation import read_ahead
from dinomx_core.training.flow import Item
from dinomx_core.training.look.names import Naming, hashed
from dinomx_core.training.model import Model
from dinomx_core.training.pixels import resize, to_float
from dinomx_interpret import scatter
from dinomx_interpret.api import Wanted
from dinomx_interpret.features import components
from dinomx_interpret.folder import hides_names
from dinomx_interpret.shown import picture_of

MOST, BATCH = 2000, 16  # images, evenly spread; images a forward pass
NONE = "no label"


@attrs.frozen(eq=False)
class Mapped:
    """A drawn map. projection: what laid it out, in words. light, dark: PNGs for bright and dark pages. classes: images of each."""

    count: int
    found: int
    projection: str
    classes: dict[str, int]
    faults: int
    light: bytes
    dark: bytes

    @property
    def told(self) -> str:
        """What it shows, in words."""
        shown = f"{self.count} of {self.found} images" if self.count < self.found else f"{self.count} images"
        left = f"; {self.faults} could not be read" if self.faults else ""
        return f"{shown} by their features ({self.projection}){left}"

    def to_json(self) -> dict[str, Any]:
        """Figures alone."""
        return {
            "images": self.count,
            "found": self.found,
            "projection": self.projection,
            "classes": self.classes,
            "unreadable": self.faults,
        }


def map_of(
    model: Model, wanted: Wanted, channels: tuple[int, ...], naming: Naming, plugins: Sequence[ModuleType]
) -> Mapped:
    """Lay out the images of `wanted.data`. Raises ConfigError where fewer than three can be read."""
    try:
        return laid(model, wanted, channels, naming, plugins)
    except DataError as error:
        raise ConfigError([Problem(str(error), "--map")]) from None


def laid(
    model: Model, wanted: Wanted, channels: tuple[int, ...], naming: Naming, plugins: Sequence[ModuleType]
) -> Mapped:
    """The same. Raises DataError."""
    place = Path(wanted.data)
    naming = hashed() if hides_names(place, plugins) and not wanted.hash_ids else naming
    data, labels = labelled(place, model, plugins)
    faults: list[str] = []
    rows: list[np.ndarray] = []
    names: list[str] = []
    pictures: list[Image.Image] = []
    chosen, batch = evenly(len(data), MOST), list[Item]()

    def flush() -> None:
        if batch:
            rows.append(model.encode(batch).features.float().cpu().numpy())
            batch.clear()

    for index, item in read_ahead(data, model.prepare, faults.append, chosen):
        if len(batch) == BATCH or (batch and batch[0].channels != item.channels):
            flush()
        batch.append(item)
        names.append(labels(index, item))
        pictures.append(thumbnail(model, item, channels))
    flush()
    if len(names) < 3:
        raise DataError(
            f"{wanted.data}: a map needs three images that can be read or more; {len(names)} of {len(data)} can"
        )
    if len({part.shape[1] for part in rows}) > 1:
        raise DataError(
            f"{wanted.data}: images of different channels have features of different widths with this model"
        )
    features = np.concatenate(rows)
    if not np.isfinite(features).all():
        raise TrainingError("the model's features are not finite: it has diverged, or its weights are damaged")
    places, projection, axes = laid_out(features)
    told = [name if name in ("", NONE) else naming(name) for name in names]
    drawn = [scatter.draw(places, told, pictures, axes, theme) for theme in (scatter.LIGHT, scatter.DARK)]
    return Mapped(len(names), len(data), projection, dict(Counter(filter(None, told))), len(faults), *drawn)


def labelled(place: Path, model: Model, plugins: Sequence[ModuleType]) -> tuple[Dataset, Any]:
    """Images, and a function of an index and its item to the name of its class, "" where nothing has one. Raises DataError."""
    if place.suffix == ".toml":
        plan = api.plan_alone(place, plugins)
        classes = plan.data.classes
        return construct(
            plan.spec.data
        ), lambda index, item: "" if not classes else NONE if item.label is None else classes[item.label]
    images = find_images(place.expanduser(), "", model.reading)
    images.check_files()
    values = list(images.columns["label"]) if "label" in images.columns else list(images.labels)
    some = any(value not in (None, "") for value in values)
    data = EmbeddedImages(images, construct(model.reading.reader))
    return data, lambda index, item: "" if not some else str(values[index]) if values[index] not in (None, "") else NONE


def thumbnail(model: Model, item: Item, channels: tuple[int, ...]) -> Image.Image:
    """A small picture of a prepared image."""
    height, width = item.image.shape[-2:]
    scale = scatter.THUMBNAIL / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    small = item.image if scale > 1 else resize(item.image, size)
    picture = picture_of(model, item, to_float(small), channels).convert("RGB")
    return picture.resize(size[::-1], Image.Resampling.NEAREST)


def laid_out(features: np.ndarray) -> tuple[np.ndarray, str, tuple[str, str]]:
    """Places (N, 2), what laid them out, and names of the axes."""
    try:
        import umap
    except ImportError:
        places = components(features, 2)
        whole = max(float(features.var(0).sum()), 1e-12)
        shares = [f"{100 * share:.3g}%" for share in places.var(0) / whole]
        axes = (f"first component, {shares[0]} of the variance", f"second, {shares[1]}")
        return places, "PCA; with umap-learn installed, UMAP", axes
    neighbours = min(15, len(features) - 1)
    places = umap.UMAP(n_neighbors=neighbours, metric="cosine", random_state=0, n_jobs=1).fit_transform(features)
    return np.asarray(places), "UMAP of cosines; distances between far groups mean little", ("", "")
