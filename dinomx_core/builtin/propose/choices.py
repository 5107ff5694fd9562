"""What to do with images that were looked at: augmentation, intensity, crops, backbone."""

from typing import Any

import attrs
import numpy as np

from dinomx_core.builtin.propose.found import PACKAGE
from dinomx_core.builtin.propose.machine import Machine
from dinomx_core.builtin.propose.pixels import Looked, moments
from dinomx_core.declare.discover import Registry
from dinomx_core.errors import ConfigError, PluginError, Problem

DOMAINS = ("ct", "mri", "xray", "microscopy", "multispectral", "natural")
FULL = {"uint8": (0.0, 255.0), "uint16": (0.0, 65535.0)}
HU, WINDOW = "HU", (-160.0, 240.0)  # the window "soft-tissue"
MANY_BANDS = 8  # more channels are bands
SPARSE = 8  # numbers that use less than an eighth of their range need another intensity than the whole of it
CPU_CROP, GPU_CROP, LOCAL = 96, 224, 96 / 224  # largest crops, and local ones in proportion
SMALLEST, BIG = 16, 40  # global crops of fewer pixels have no local ones; of more, larger patches


@attrs.frozen
class Table:
    """A table of the config: its keys with their values, and why some of them are so."""

    name: str
    values: dict[str, Any]
    why: dict[str, str] = attrs.field(factory=dict)


def domain_of(looked: Looked, reader: str, asked: str) -> tuple[str, str]:
    """What kind of images these are, and why."""
    if asked:
        if asked not in DOMAINS:
            raise ConfigError([Problem(f'expected one of {", ".join(DOMAINS)}, got "{asked}"', "--domain")])
        return asked, "as --domain says"
    seen, channels = looked.info.sampled, looked.info.channels
    if seen and seen.units == HU:
        return "ct", "the numbers are HU"
    if reader == "nifti":
        return "mri", "volumes without units; `--domain ct` if they are CT"
    if channels > MANY_BANDS:
        return "multispectral", f"{channels} channels"
    if reader == "ome-zarr" or (reader == "tiff" and (looked.many or looked.channels != {3} or not is_byte(looked))):
        return "microscopy", "TIFF of many pages, channels or bits"
    if looked.channels <= {1}:
        return "xray", "grey images; for others choose `--domain`: mri, microscopy, natural"
    if looked.channels <= {1, 3}:
        return "natural", "colour images"
    return "microscopy", f"{channels} channels"


def is_byte(looked: Looked) -> bool:
    """Whether pixels have 8 bits."""
    return bool(looked.info.sampled and looked.info.sampled.kind in ("uint8", "bool"))


def intensity_of(looked: Looked, domain: str, registry: Registry) -> tuple[Table | None, tuple[float, float], str]:
    """The table [intensity] (None: the default does), which numbers are about black and white then, and a note."""
    seen, names = looked.info.sampled, registry.names("intensity")
    if seen is None or seen.kind in ("uint8", "bool"):
        return None, FULL["uint8"], ""
    if seen.units == HU and "window" in names and seen.low < WINDOW[1] and seen.high > WINDOW[0]:
        why = "numbers are HU; others: lung, mediastinum, bone, brain, liver"
        return Table("intensity", {"name": "window", "windows": ["soft-tissue"]}, {"windows": why}), WINDOW, ""
    full = seen.full or ((0.0, 1.0) if seen.kind.startswith("float") and seen.low >= 0 and seen.high <= 1 else None)
    if full and (seen.high - seen.low) * SPARSE >= full[1] - full[0]:
        return None, full, ""
    if "percentiles" in names:
        pixels = np.concatenate([plane.pixels.ravel() for plane in looked.planes]).astype(np.float64)
        ends = (float(np.percentile(pixels, 0.5)), float(np.percentile(pixels, 99.5)))
        why = f"{seen.kind} from {seen.low:g} to {seen.high:g}: each image's own 0.5% and 99.5% become 0 and 1"
        values: dict[str, Any] = {"name": "percentiles"}
        if domain == "multispectral":
            values["by_channel"] = False
        return Table("intensity", values, {"name": why, "by_channel": "a spectrum keeps its shape"}), ends, ""
    note = f"numbers are {seen.kind} without a declared range: pip install {PACKAGE} for windows and percentiles"
    if seen.kind == "uint16" and seen.high >= 65536 / SPARSE:
        return None, FULL["uint16"], ""
    high = 2 ** max(1, int(seen.high)).bit_length() - 1 if seen.low >= 0 else seen.high
    low = min(0.0, seen.low)
    why = f"seen: {seen.low:g} to {seen.high:g}; a number outside makes an image unreadable"
    return Table("intensity", {"name": "full-range", "range": [low, high]}, {"range": why}), (low, high), note


def crops_of(side: int, machine: Machine) -> tuple[int, int, int]:
    """Sides of global and local crops, and of patches: crops no larger than the images, and multiples of the patch. Local ones are 0
    where there is too little to crop. Raises ConfigError for images that are too small."""
    largest = min(side, GPU_CROP if machine.gpu else CPU_CROP)
    patch = 4 if largest <= BIG else 8 if largest <= CPU_CROP + 16 else 16
    size = largest // patch * patch
    if not size:
        raise ConfigError([Problem(f"images of {side} px are smaller than the smallest patch of 4 px; enlarge them")])
    local = max(2, round(size * LOCAL / patch)) * patch if size >= SMALLEST else 0
    return size, local, patch


def augmentation_of(
    domain: str, why: str, looked: Looked, size: int, local: int, ends: tuple[float, float], registry: Registry
) -> tuple[Table, str]:
    """The table [augmentation], and a note where a domain's is not installed."""
    name, note = ("multicrop" if domain == "natural" else domain), ""
    if name not in registry.names("augmentation"):
        name, note = "multicrop", f'the augmentation "{domain}" would fit better: pip install {PACKAGE}'
    values: dict[str, Any] = {"name": name, "globals": {"size": size}, "locals": {"size": local, "count": 4}}
    reasons = {"name": note or why, "globals": f"images: {looked.sizes} px"}
    if not local:
        values["locals"] = {"count": 0} if name != "multicrop" else {"size": size, "count": 0}
        reasons["locals"] = "small images leave little to crop"
    if name != "multicrop" or looked.channels != {3}:
        values["mean"], values["std"] = ([value] for value in moments(looked.planes, *ends))
        reasons["mean"] = "about; `dinomx data` measures them"
    return Table("augmentation", values, reasons), note


def backbone_of(recipe: str, patch: int, machine: Machine, registry: Registry) -> Table:
    """The table [backbone]: the recipe's small one, or on a GPU with images to fill it a ViT-S."""
    if not machine.gpu:
        return Table("backbone", {"patch_size": patch}, {"patch_size": "the recipe's ViT: width 128, depth 6"})
    sizes = {"width": 384, "depth": 12, "heads": 6, "patch_size": patch, "init_std": 0.05}
    return Table("backbone", sizes, {"width": "a ViT-S", "init_std": "1 / sqrt(width)"})


def recipe_of(registry: Registry, local: int) -> str:
    """The recipe for small data; where images are too small for local crops they are for masks, too. Raises PluginError where there is
    none."""
    for name in ("dinov2-small", "dinov1-small") if local else ("dinov1-small", "dinov2-small"):
        if name in registry.names("recipe"):
            return name
    raise PluginError("no method is installed: pip install dinomx-dinov2")
