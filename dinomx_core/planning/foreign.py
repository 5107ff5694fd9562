"""Models of others: weights of a family that some backbone reads, with the preprocessing that their folder names. No torch."""

from pathlib import Path
from typing import Any

import attrs

from dinomx_core.builtin import weights as files
from dinomx_core.declare.discover import Registry
from dinomx_core.declare.facts import BackboneShape, Preprocessing
from dinomx_core.declare.values import Chosen
from dinomx_core.errors import DataError, OtherChannels
from dinomx_core.folders import is_ours
from dinomx_core.planning.origin import RGB, Reading, first_reading, from_weights
from dinomx_core.planning.spec import SLOTS

PROCESSOR = "preprocessor_config.json"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
GREY = ((0.449,), (0.226,))  # their means, for models of another number of channels
SIDE = 224  # pixels, of models that do not say


@attrs.frozen
class Foreign:
    """A model of another origin: the backbone that reads it, its sizes, how files become images and go in, as they do in runs that say
    nothing of it, and what to say of how it was read."""

    chosen: Chosen
    shape: BackboneShape
    preprocessing: Preprocessing
    intensity: Chosen
    reading: Reading
    notes: tuple[str, ...]


def is_foreign(source: Path) -> bool:
    """Whether a path is a folder or a file of weights that is none of ours."""
    if source.is_dir():
        return not is_ours(source) and (source / files.CONFIG).is_file()
    return source.is_file() and source.suffix in files.FILES


def read_foreign(source: Path, registry: Registry) -> Foreign:
    """Look at weights. Raises DataError where no installed backbone reads them."""
    try:
        return _read_foreign(source, registry)
    except DataError as error:
        message = str(error)
        raise type(error)(message if message.startswith(str(source)) else f"{source}: {message}") from None


def _read_foreign(source: Path, registry: Registry) -> Foreign:
    resize, crop = sizes_of(source)
    chosen, shape = reader_of(source, registry, max(crop))
    crop = tuple(max(shape.patch_size, side // shape.patch_size * shape.patch_size) for side in crop)  # type: ignore[assignment]
    statistics, notes = shape.statistics, list[str]()
    if statistics is None:
        statistics = IMAGENET if shape.channels == RGB else GREY
        notes.append(f"{source} does not say how its pixels were normalised: ImageNet's mean and deviation are taken")
    if any(len(values) not in (1, shape.channels) for values in statistics):
        raise DataError(
            f"{source / PROCESSOR}: has {len(statistics[0])} means, the model {shape.channels} channels; mend it"
        )
    kind, default = SLOTS["intensity"]
    intensity, reader = registry.find(kind, str(default)), registry.find("reader", "image")
    return Foreign(
        chosen, shape, Preprocessing(max(resize, min(crop)), crop, *statistics), Chosen(kind, intensity, intensity.options()),
        Reading(Chosen("reader", reader, reader.options())), tuple(notes),
    )  # fmt: skip


def reader_of(source: Path, registry: Registry, side: int) -> tuple[Chosen, BackboneShape]:
    """The first backbone that reads weights, and its sizes. Raises DataError, or PluginError, where none does."""

    def read(reader: Chosen) -> tuple[Chosen, BackboneShape]:
        chosen = from_weights(reader, str(source))
        try:
            return chosen, chosen.component.shape(chosen.options, RGB, side)
        except OtherChannels as error:
            return chosen, chosen.component.shape(chosen.options, error.channels, side)

    return first_reading(registry, str(source), read)


def sizes_of(source: Path) -> tuple[int, tuple[int, int]]:
    """To how many pixels the folder has the shorter side resized (0 where it does not say), and height and width of the crop."""
    if not source.is_dir():
        return 0, (SIDE, SIDE)
    config = files.read_json(source / files.CONFIG)
    prepared = files.read_json(source / PROCESSOR) if (source / PROCESSOR).is_file() else {}
    inner = config.get("vision_config") or {}
    size = prepared.get("size")
    shorter = size.get("shortest_edge") if isinstance(size, dict) else size
    for told in (prepared.get("crop_size"), size, config.get("image_size"), inner.get("image_size")):
        if sides := pair(told):
            return shorter if isinstance(shorter, int) else 0, sides
    return 0, (SIDE, SIDE)


def pair(told: Any) -> tuple[int, int] | None:
    """Height and width as image processors and configs write them."""
    if isinstance(told, dict):
        told = [told.get(name, told.get("shortest_edge")) for name in ("height", "width")]
    sides = told if isinstance(told, list) else [told, told]
    if len(sides) == 2 and all(isinstance(side, int) and side > 0 for side in sides):
        return sides[0], sides[1]
    return None
