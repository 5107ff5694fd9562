"""`dinomx explain`: opens the model, looks at the images, draws, and writes a folder."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import torch
from PIL import Image

from dinomx_core import ConfigError, DataError, api
from dinomx_core.builtin.pictures import evenly
from dinomx_core.errors import Problem
from dinomx_core.training.evaluation import read_ahead
from dinomx_core.training.look.names import Naming, as_they_are, hashed
from dinomx_core.training.look.sheet import enlarged
from dinomx_core.training.model import Model
from dinomx_interpret import drawing, folder, shown
from dinomx_interpret.api import Wanted
from dinomx_interpret.mapping import Mapped, map_of
from dinomx_interpret.named import Found, find
from dinomx_interpret.page import page
from dinomx_interpret.panels import Panel, Shared, attention, similar
from dinomx_interpret.seeing import Seen, block_number, see, sides

SHOWN = 20  # faults that are named


@attrs.frozen(eq=False)
class Explained:
    """An image with its name, its picture and its panels; patch: whose similarity the last panel is."""

    name: str
    stem: str
    seen: Seen
    picture: Image.Image
    panels: tuple[Panel, ...]
    patch: int


def run(source: Path, places: Sequence[Path], wanted: Wanted, plugins: Sequence[ModuleType]) -> dict[str, Any]:
    """All of it; see `api.explain`."""
    folder.check_folder(wanted.out, wanted.overwrite)
    model = api.model_of(source.expanduser(), plugins)
    notes = list(model.notes)
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    channels, block = shown.channels_of(model, wanted.channels), block_number(model, wanted.block)
    naming = hashed() if wanted.hash_ids else as_they_are
    found = find(places, model.reading)
    chosen, faults = evenly(len(found), wanted.limit), list(found.faults)
    images = looked_at(model, found, chosen, block, wanted, faults)
    if len(chosen) < len(found):
        lost = f"; {len(chosen) - len(images)} more cannot be read" if len(images) < len(chosen) else ""
        notes.append(f"{len(images)} of {len(found)} images are drawn, evenly spread (--limit){lost}")
    shared = Shared.of(images, wanted.clusters)
    drawn = explained(model, images, shared, channels, block + 1, wanted, naming)
    mapped = map_of(model, wanted, channels, naming, plugins) if wanted.data else None
    if images[0].attended is None:
        notes.append(
            "attention, rollout and registers are left out: this backbone has no attentions to look at (a convolutional one, or "
            "one that computes its attention itself)"
        )
    report = report_of(source, model, len(found), block + 1, drawn, shared, mapped, channels, notes)
    report["warnings"] = warnings(faults, naming, wanted.hash_ids)
    report["page"] = str(wanted.out / folder.PAGE)
    folder.write(wanted.out, report, files_of(report, drawn, shared, mapped))
    return report


def looked_at(
    model: Model, found: Found, chosen: Sequence[int], block: int, wanted: Wanted, faults: list[str]
) -> list[Seen]:
    """The chosen images that can be read, through the model. Raises DataError where none can, ConfigError for a size that is too large."""
    images, unread = list[Seen](), list[str]()
    for number, (_, item) in enumerate(read_ahead(found, model.prepare, unread.append, chosen), 1):
        height, width = item.image.shape[-2:]
        try:
            size = sides(height, width, model.backbone.patch_size, model.preprocessing, wanted.size)
        except DataError as error:
            raise ConfigError([Problem(f"{item.id}: {error}", "--size")]) from None
        images.append(see(model, item, size, block))
        wanted.progress(number, len(chosen))
    if not images:
        raise DataError(f"none of {len(chosen)} images can be read; the first: {unread[0]}")
    faults += unread
    return images


def explained(
    model: Model,
    images: Sequence[Seen],
    shared: Shared,
    channels: tuple[int, ...],
    block: int,
    wanted: Wanted,
    naming: Naming,
) -> list[Explained]:
    """Every image with all its panels. Raises ConfigError for a patch that one does not have."""
    places = [patch_of(seen, wanted.patch) for seen in images]
    result = []
    for number, (seen, common, near, patch) in enumerate(
        zip(images, shared.panels(), similar(images, places), places), 1
    ):
        name = naming(seen.item.id)
        panels = (*attention(seen, block), *common, near)
        picture = shown.picture_of(model, seen.item, seen.pixels, channels)
        result.append(Explained(name, shown.stem(number, name), seen, picture, panels, patch))
    return result


def patch_of(seen: Seen, wanted: tuple[int, int] | None) -> int:
    """The number of a patch by its row and column; None: the middle one. Raises ConfigError where there is none."""
    height, width = seen.grid
    row, column = wanted or (height // 2, width // 2)
    if row >= height or column >= width:
        message = f"{seen.item.id}: has {height} rows and {width} columns of patches, there is no {row},{column}"
        raise ConfigError([Problem(message, "--patch")])
    return row * width + column


def warnings(faults: Sequence[str], naming: Naming, hide: bool) -> list[str]:
    """What could not be read."""
    if not faults:
        return []
    told = [f"{naming(fault)} (run without --hash-ids to read why)" if hide else fault for fault in faults[:SHOWN]]
    more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
    return [f"left out, {len(faults)} in all: {'; '.join([*told, *more])}"]


def report_of(
    source: Path,
    model: Model,
    found: int,
    block: int,
    drawn: Sequence[Explained],
    shared: Shared,
    mapped: Mapped | None,
    channels: tuple[int, ...],
    notes: Sequence[str],
) -> dict[str, Any]:
    """What was found, in figures; the folder's and the page's names come later."""
    backbone, heads = model.backbone, drawn[0].seen.attended
    return {
        "name": folder.name_of(source), "found": found, "block": block, "blocks": len(backbone.blocks), "width": backbone.width,
        "patch_size": backbone.patch_size, "heads": 0 if heads is None else len(heads.heads),
        "registers": 0 if heads is None else len(heads.registers), "query": "class token" if drawn[0].seen.cls else "mean over patches",
        "channels": list(channels), "shown": shown.rule_of(model, channels),
        "similarity_error": shared.codes.error, "similarity_features": len(shared.codes.scale),
        "notes": list(notes), "map": None if mapped is None else mapped.to_json(),
        "images": [
            {
                "name": image.name, "size": [image.picture.height, image.picture.width], "grid": list(image.seen.grid),
                "patch": list(divmod(image.patch, image.seen.grid[1])),
                "panels": [{"name": p.name, "title": p.title, "told": p.told} for p in image.panels],
            }
            for image in drawn
        ],
    }  # fmt: skip


def files_of(
    report: dict[str, Any], drawn: Sequence[Explained], shared: Shared, mapped: Mapped | None
) -> dict[str, Callable[[Path], Any]]:
    """All files by their names, each with what writes it."""
    files: dict[str, Callable[[Path], Any]] = {}
    title = f"{report['name']}: {report['blocks']} blocks, patches of {report['patch_size']} px"
    for image in drawn:
        base, grid = enlarged(image.picture, drawing.SIDE), image.seen.grid
        pictures = {panel.name: drawing.spread(panel.colours, base.size) for panel in image.panels}
        drawing.framed(pictures[image.panels[-1].name], grid, image.patch)
        note = " · ".join(part for part in (image.name, report["shown"]) if part)
        files[f"{image.stem}.png"] = drawing.sheet(title, note, image.picture, grid, image.panels, image.patch).save
        files[f"{image.stem}/image.png"] = base.save
        files.update({f"{image.stem}/{name}.png": picture.save for name, picture in pictures.items()})
    if mapped is not None:
        files["map.png"] = lambda path: path.write_bytes(mapped.light)
    files[folder.PAGE] = lambda path: path.write_text(page(report, drawn, shared, mapped), "utf-8")
    return files
