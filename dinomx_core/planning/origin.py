"""What a run starts from where that is another run: its sizes, and whether they fit. No weights are read."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs
import cattrs

from dinomx_core.declare.discover import Registry
from dinomx_core.declare.facts import (
    BackboneShape,
    Frozen,
    HeadShape,
)
from dinomx_core.declare.faults import cause, faulty
from dinomx_core.declare.values import Chosen
from dinomx_core.errors import UNREADABLE, DataError, OtherChannels, OtherFamily, PluginError
from dinomx_core.folders import DESCRIPTION, MANIFEST, fault_of, find_model, is_ours, newest_whole, stages_in
from dinomx_core.planning.convert import make_converter
from dinomx_core.planning.spec import RunSpec
from dinomx_core.planning.walk import as_table, chosen_parts

SIZES = {"patch_size": "patch", "width": "width", "depth": "number of blocks", "heads": "number of attention heads",
         "channels": "number of channels", "prefix": "number of tokens before the patches"}  # fmt: skip
RGB = 3
T = TypeVar("T")


@attrs.frozen
class Origin:
    """Where weights come from: a run, checkpoint or export, planned or there, or a model. `chosen` and `strategies` rebuild its backbone,
    for images of `channels` channels and `image_size` px."""

    place: str
    backbone: BackboneShape
    heads: Mapping[str, HeadShape]
    chosen: Chosen
    strategies: tuple[Chosen, ...]
    channels: int
    image_size: int


def checkpoint_of(path: Path) -> tuple[Path, list[str]]:
    """The checkpoint with a student that a path means: itself, or a run's newest whole one; and what to say of newer ones that are not
    whole. Raises DataError when it means none."""
    place, notes = path, list[str]()
    if (path / "checkpoints").is_dir():
        step, notes = newest_whole(path / "checkpoints")
        if step is None:
            raise DataError("; ".join(notes) or f"{path}: has no checkpoint yet", "start")
        place = path / "checkpoints" / str(step)
    if not (place / MANIFEST).is_file() or not (place / "student.safetensors").is_file():
        raise DataError(f"{path}: is neither a run with checkpoints nor a checkpoint of one{stages_in(path)}", "start")
    if fault := fault_of(place):
        raise DataError(f"{place}: {fault}; choose another checkpoint", "start")
    return place, notes


def describe(folder: Path, registry: Registry) -> Origin:
    """Sizes of a checkpoint or export. Raises DataError where they cannot be read."""
    if (folder / MANIFEST).is_file() and (fault := fault_of(folder)):
        raise DataError(f"{folder}: {fault}; choose another checkpoint")
    try:
        about = json.loads((folder / DESCRIPTION).read_text("utf-8"))
        chosen = rebuilt(registry, "backbone", about["backbone"])
        channels, image_size = about["channels"], about["image_size"]
        shape = chosen.component.shape(chosen.options, channels, image_size)
        heads = {label: HeadShape(head["outputs"], head["parameters"]) for label, head in about["heads"].items()}
        strategies = tuple(rebuilt(registry, "strategy", table) for table in about["strategies"])
        how = about["preprocessing"]
        shape = attrs.evolve(shape, statistics=(tuple(how["mean"]), tuple(how["std"])))
    except (OSError, ValueError, KeyError, TypeError, PluginError, cattrs.BaseValidationError) as error:
        raise DataError(f"{folder / DESCRIPTION}: cannot be read ({type(error).__name__}: {error})") from None
    return Origin(str(folder), shape, heads, chosen, strategies, channels, image_size)


def described(folder: Path, kind: str, registry: Registry) -> Chosen:
    """The component of a kind ("intensity", "reader") that a checkpoint's or export's images go through. Raises DataError."""
    try:
        return rebuilt(registry, kind, json.loads((folder / DESCRIPTION).read_text("utf-8"))[kind])
    except (OSError, ValueError, KeyError, TypeError, cattrs.BaseValidationError) as error:
        raise DataError(f"{folder / DESCRIPTION}: cannot be read ({type(error).__name__}: {error})") from None


@attrs.frozen
class Reading:
    """How files become images: the reader, slices before and after that are channels, too, and where an image has a file a channel, what
    tells these files apart, or the manifest's columns of them."""

    reader: Chosen
    neighbours: int = 0
    stack: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    @property
    def several(self) -> bool:
        """Whether an image is made of more than a file's one plane."""
        return bool(self.neighbours or self.stack or self.columns)

    def table(self) -> dict[str, Any]:
        """As a description keeps it."""
        return {
            "name": self.reader.component.name, "options": as_table(self.reader.options), "neighbours": self.neighbours,
            "stack": list(self.stack), "columns": list(self.columns),
        }  # fmt: skip


def data_reading(spec: RunSpec, registry: Registry) -> Reading:
    """How a run's files become images: as its data, or the first of a mixture, say, or one common picture a file."""
    for _, chosen in chosen_parts(spec.data):
        options = chosen.options
        if isinstance(reader := getattr(options, "reader", None), Chosen):
            columns = tuple(getattr(options, "columns", ()))
            several = columns if len(columns) > 1 else ()
            return Reading(reader, getattr(options, "neighbours", 0), tuple(getattr(options, "stack", ())), several)
    component = registry.find("reader", "image")
    return Reading(Chosen("reader", component, component.options()))


def described_reading(folder: Path, registry: Registry) -> Reading:
    """The same of a checkpoint or export. Raises DataError."""
    reader = described(folder, "reader", registry)
    about = json.loads((folder / DESCRIPTION).read_text("utf-8"))["reader"]
    return Reading(reader, about["neighbours"], tuple(about["stack"]), tuple(about["columns"]))


def rebuilt(registry: Registry, kind: str, table: dict[str, Any]) -> Chosen:
    """A component as a description keeps it, by its name and its options."""
    component = registry.find(kind, table["name"])
    return Chosen(table["name"], component, make_converter(registry).structure(table["options"], component.options))


def misfits(origin: Origin, shape: BackboneShape) -> Iterator[tuple[str, str]]:
    """How a backbone differs from the one it takes weights from: (option, message) pairs, the first of which names the cause."""
    for name, words in SIZES.items():
        ours, theirs = getattr(shape, name), getattr(origin.backbone, name)
        if ours != theirs:
            yield name, f"the {words} is {ours}, but {origin.place} has {theirs}"
    if same_sizes(origin.backbone, shape) and shape.parameters != origin.backbone.parameters:
        yield (
            "",
            f"has {shape.parameters} parameters, but {origin.place} has {origin.backbone.parameters}; the position grid, the MLP or "
            "the biases differ (backbone.image_size keeps a grid)",
        )


def same_sizes(one: BackboneShape, other: BackboneShape) -> bool:
    """Whether no named size differs."""
    return all(getattr(one, name) == getattr(other, name) for name in SIZES)


def source_of(network: Frozen, backbone: Chosen, channels: int, size: int, registry: Registry) -> Origin:
    """What a further network is loaded from: a run, checkpoint or export, or weights that the student's kind of backbone reads, or of
    a foreign network any kind. `size`: of the images, in pixels. Raises DataError when it is none of them."""
    path = Path(network.source).expanduser()
    if network.heads and (path / DESCRIPTION).is_file() and not (path / MANIFEST).is_file():
        raise DataError(f"{path}: is an export, which has no heads; name the run or one of its checkpoints")
    if is_ours(path):
        return describe(checkpoint_of(path)[0] if network.heads else find_model(path, "teacher"), registry)
    if hint := stages_in(path):
        raise DataError(f"{path}: is no run itself{hint}")
    if not network.foreign:
        return _weights(backbone, network.source, channels, size)
    return first_reading(registry, network.source, lambda reader: _foreign(reader, network.source, channels, size))


def first_reading(registry: Registry, source: str, read: Callable[[Chosen], T]) -> T:
    """What the first backbone that knows weights makes of them. Raises PluginError of a broken one where no other reads them, else
    DataError."""
    other: OtherFamily | None = None
    broken: PluginError | None = None
    for reader in readers(registry):
        try:
            return read(reader)
        except OtherFamily as error:
            other = other or error
        except PluginError as error:
            broken = broken or error
        except UNREADABLE as error:
            if isinstance(error, DataError) or not reader.component.package:
                raise
            broken = broken or faulty(reader.component, f"cannot look at {source}: {cause(error)}")
    raise broken or other or DataError(f"{source}: no installed backbone reads weights")


def readers(registry: Registry) -> Iterator[Chosen]:
    """Backbones that read weights with nothing but their default options, general ones first."""
    converter = make_converter(registry)
    for component in sorted(registry.all("backbone"), key=lambda component: not component.general):
        if component.from_weights is None:
            continue
        try:
            options = converter.structure({}, component.options)
        except cattrs.BaseValidationError:
            continue  # it has options that must be given
        yield Chosen(component.name, component, options)


def _foreign(reader: Chosen, source: str, channels: int, size: int) -> Origin:
    """Weights as one kind of backbone reads them; grey images are shown to RGB models as RGB."""
    try:
        return _weights(reader, source, channels, size)
    except OtherChannels as error:
        if channels == 1 and error.channels == RGB:
            return _weights(reader, source, RGB, size)
        raise DataError(
            f"{source}: made for {error.channels} channels, the data have {channels}; take a model that was made for them, or for "
            "RGB where the images are grey",
            error.key,
        ) from None


def _weights(backbone: Chosen, source: str, channels: int, size: int) -> Origin:
    chosen = from_weights(backbone, source)
    shape = chosen.component.shape(chosen.options, channels, size)
    return Origin(source, shape, shape.beside, chosen, (), channels, size)


def from_weights(backbone: Chosen, source: str) -> Chosen:
    """The same kind of backbone, starting from weights. Raises DataError where it reads none."""
    if backbone.component.from_weights is None:
        raise DataError(
            f'{source}: the backbone "{backbone.component.name}" reads no weights; name a run or a checkpoint'
        )
    return attrs.evolve(backbone, options=backbone.component.from_weights(backbone.options, source))
