"""Models from wherever they are: ours, and weights that nobody here has described."""

from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from dinomx_core import Chosen, DataError, OtherChannels, OtherFamily, Preprocessing, api
from dinomx_core.builtin import weights as files
from dinomx_core.declare.discover import Registry, discover
from dinomx_core.folders import is_ours
from dinomx_core.planning.origin import RGB, Reading, from_weights, readers
from dinomx_core.planning.spec import SLOTS
from dinomx_core.training.construct import construct
from dinomx_core.training.model import Model

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
GREY = ((0.449,), (0.226,))  # the means of these over the channels, for models of another number of them
SIDE = 224  # pixels, of models that do not say


def name_of(source: Path) -> str:
    """What a source is called: a run's own name for its export, with the step for a checkpoint."""
    path = source.expanduser().absolute()
    if path.name == "export":
        return path.parent.name
    if path.parent.name == "checkpoints":
        return f"{path.parent.parent.name}-{path.name}"
    return path.stem if path.is_file() else path.name or "model"


def open_model(source: Path, plugins: Iterable[ModuleType]) -> tuple[Model, list[str]]:
    """The model, and what to say of how it was opened. Raises DataError where there is none."""
    source = source.expanduser()
    foreign = source.is_dir() and not is_ours(source) and (source / files.CONFIG).is_file()
    if not foreign and not (source.is_file() and source.suffix in files.FILES):
        return api.model_of(source, plugins), []
    registry = discover(plugins)
    try:
        return of_weights(source, registry)
    except DataError as error:
        message = str(error)
        raise type(error)(message if message.startswith(str(source)) else f"{source}: {message}") from None


def of_weights(source: Path, registry: Registry) -> tuple[Model, list[str]]:
    """Weights through the first backbone that reads them, with the preprocessing that their folder names."""
    sides, notes = sides_of(source), list[str]()
    chosen, shape = described(source, registry, min(sides))
    patch = shape.patch_size
    crop = tuple(max(patch, side // patch * patch) for side in sides)
    statistics = shape.statistics
    if statistics is None:
        statistics = IMAGENET if shape.channels == RGB else GREY
        notes.append(f"{source.name} does not say how its pixels were normalised: ImageNet's mean and std are taken")
    if any(len(values) not in (1, shape.channels) for values in statistics):
        raise DataError(f"mean and std are of {len(statistics[0])} channels, the model has {shape.channels}", "weights")
    backbone = construct(chosen, shape, min(crop))
    backbone.warm_start()
    kind, default = SLOTS["intensity"]
    intensity = registry.find(kind, str(default))
    reader = registry.find("reader", "image")
    reading = Reading(Chosen("reader", reader, reader.options()))
    how = Preprocessing(max(min(crop), shorter_of(source)), crop, *statistics)
    return Model(backbone, how, shape.channels, Chosen("intensity", intensity, intensity.options()), reading, {}), notes


def described(source: Path, registry: Registry, side: int) -> tuple[Chosen, Any]:
    """The backbone that reads the weights, and its shape. Raises DataError where none does."""
    first: OtherFamily | None = None
    for reader in readers(registry):
        chosen = from_weights(reader, str(source))
        try:
            try:
                return chosen, chosen.component.shape(chosen.options, RGB, side)
            except OtherChannels as error:
                return chosen, chosen.component.shape(chosen.options, error.channels, side)
        except OtherFamily as error:
            first = first or error
    raise first or DataError("no installed backbone reads weights")


def sides_of(source: Path) -> tuple[int, int]:
    """Height and width in pixels that the weights' folder prepares images to."""
    if not source.is_dir():
        return SIDE, SIDE
    config, prepared = files.read_json(source / files.CONFIG), preprocessor_of(source)
    inner = config.get("vision_config") or {}
    for size in (prepared.get("crop_size"), prepared.get("size"), config.get("image_size"), inner.get("image_size")):
        if isinstance(size, dict):
            size = [size.get("height", size.get("shortest_edge")), size.get("width", size.get("shortest_edge"))]
        sides = size if isinstance(size, list) and len(size) == 2 else [size, size]
        found = [side for side in sides if isinstance(side, int) and not isinstance(side, bool) and side > 0]
        if len(found) == 2:
            return found[0], found[1]
    return SIDE, SIDE


def shorter_of(source: Path) -> int:
    """To how many pixels the folder has the shorter side of images resized before they are cut; 0 where it does not say."""
    size = preprocessor_of(source).get("size")
    edge = size.get("shortest_edge") if isinstance(size, dict) else None
    return edge if isinstance(edge, int) else 0


def preprocessor_of(source: Path) -> dict[str, Any]:
    """What the folder's preprocessor_config.json holds, {} where there is none."""
    file = source / "preprocessor_config.json"
    return files.read_json(file) if file.is_file() else {}
