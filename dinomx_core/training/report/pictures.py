"""Pictures of a run, small files in `pictures/`: crops as training draws them, and where the teacher attends in a few images over time."""

import json
import re
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from dinomx_core.artifacts import RunFolder, write_atomically
from dinomx_core.builtin.pictures import evenly
from dinomx_core.errors import DataError
from dinomx_core.training.attention import recorded
from dinomx_core.training.build import Parts
from dinomx_core.training.colours import as_before, components, painted, spread_out
from dinomx_core.training.data import TrainingImages
from dinomx_core.training.evaluation import cut_out, make_encoder
from dinomx_core.training.flow import Item, Tokens
from dinomx_core.training.look.rows import Shown, ends_of, rows
from dinomx_core.training.look.sheet import enlarged
from dinomx_core.training.maps import on_patches
from dinomx_core.training.report.told import Telling

FOLDER, INDEX = "pictures", "pictures.json"
SIDE = 96  # pixels, at least, of the shorter side of an image or a map that is written
EXACT = 96  # pixels of the longer side of a picture that is written without loss
LOOKS = 24  # that are kept; where there are more, every other one goes
BLANK: dict[str, Any] = {"images": [], "crops": [], "looks": [], "attention": True}


class Pictures:
    """Draws; all processes take part in the forward passes, and the first alone writes."""

    def __init__(self, parts: Parts, folder: RunFolder, telling: Telling):
        self.parts, self.telling, self.writes = parts, telling, folder.writes
        self.folder, plan = folder.path / FOLDER, parts.plan
        backbone, how, channels = parts.teacher.network.backbone, plan.preprocessing, plan.data.channels
        self.encoder = make_encoder(backbone, how, channels, parts.parallelism, parts.intensity)
        self.count = min(plan.spec.report.count, plan.data.count)
        self.items: list[Item] = []
        self.index: dict[str, Any] = {}

    def prepare(self, step: int) -> None:
        """Draw what does not change, or keep what a run that goes on has drawn before a step."""
        parts, plan = self.parts, self.parts.plan
        images = TrainingImages(
            parts.data, parts.augmentation, plan.seed, plan.spec.loader.shuffle, plan.batch.images, parts.intensity, plan.data.parts
        )  # fmt: skip
        index, places = self.recall(step), self.read(images)
        if not index["images"]:
            self.draw(index, images, places)
        self.index = index

    def recall(self, step: int) -> dict[str, Any]:
        """What was drawn before a step; the rest is deleted."""
        file = self.folder / INDEX
        index = {**BLANK, **json.loads(file.read_text("utf-8"))} if step and file.exists() else None
        if index is None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir()
            return {name: list(value) if isinstance(value, list) else value for name, value in BLANK.items()}
        self.forget(index, [look for look in index["looks"] if look < step])
        return index

    def read(self, images: TrainingImages) -> list[int]:
        """Keep the images at some positions of the first pass in memory; those that can be read, with their positions."""
        places = []
        for place in evenly(len(images.data), self.count):
            try:
                item = self.encoder.prepare(images.data[images.positions.index(place)])
                cut_out(item, self.encoder.preprocessing)
            except DataError:
                continue  # the loop tells of it
            self.items.append(item)
            places.append(place)
        return places

    def draw(self, index: dict[str, Any], images: TrainingImages, places: Sequence[int]) -> None:
        """The images as the model is shown them when nothing is random, and their crops as training has them."""
        plan, shown = self.parts.plan, self.shown()
        for number, item in enumerate(self.items, 1):
            picture = enlarged(shown.picture(cut_out(item, plan.preprocessing), item.channels), SIDE)
            title = self.telling.name(item.id) if item.id else f"image {number}"
            index["images"].append({"title": title, "file": self.save(f"image-{number}", picture)})
        drawn = rows(images, places, plan.preprocessing, shown, plan.data.classes, self.telling.name)
        for number, row in enumerate(drawn, 1):
            crops = [
                {"name": name, "file": self.save(f"crop-{number}-{n}", picture), "colour": colour, "size": picture.size}
                for n, (name, picture, colour) in enumerate(row.crops, 1)
            ]
            whole = self.save(f"crop-{number}-whole", row.whole)
            index["crops"].append({"title": row.title, "whole": whole, "crops": crops})

    def shown(self) -> Shown:
        """How channels become colours: where numbers may lie anywhere, the middle of those of all images goes from dark to bright."""
        plan, channels = self.parts.plan, self.parts.plan.data.channels
        intensity, ends = plan.spec.intensity, ((0.0, 1.0),) * channels
        if not intensity.component.bounded(intensity.options) and self.items:
            every = [ends_of(cut_out(item, plan.preprocessing), item.channels, channels) for item in self.items]
            ends = tuple((min(low for low, _ in one), max(high for _, high in one)) for one in zip(*every))
        return Shown(tuple(range(min(3, channels))), ends)

    def look(self, step: int) -> None:
        """Attention and features at a step. Every process makes as many forward passes, since with shards they compute together."""
        parts = self.parts
        blank = Item(torch.zeros(parts.plan.data.channels, *parts.plan.preprocessing.crop))
        seen: list[tuple[Tokens, torch.Tensor | None]] = []
        with torch.random.fork_rng(devices=[parts.device] if parts.device.type == "cuda" else []):
            for number in range(self.count):
                with recorded(last=1) as maps:
                    tokens = self.encoder.encode([self.items[number] if number < len(self.items) else blank])
                seen.append((tokens, maps[0] if maps else None))
        if not self.index or not self.items:
            return
        seen = seen[: len(self.items)]
        self.index["attention"] = seen[0][1] is not None
        for number, (tokens, attention) in enumerate(seen, 1):
            if attention is not None:
                found = (
                    on_patches(tokens, attention)[0].mean(0).unflatten(-1, tokens.grid).mean(0).float().cpu().numpy()
                )
                self.save_map(f"{step}-{number}-attention", painted(found, 0.0, float(found.max()), "inferno"))
        self.paint(step, [tokens for tokens, _ in seen])
        self.forget(self.index, thinned(sorted({*self.index["looks"], step})))

    def paint(self, step: int, seen: Sequence[Tokens]) -> None:
        """The first three components of all patches of all images as colours, as much like those of the look before as can be."""
        maps = [tokens.patches[0].float().unflatten(0, tokens.grid).mean(0).cpu().numpy() for tokens in seen]
        colours = spread_out(components(np.concatenate([found.reshape(-1, found.shape[-1]) for found in maps]), 3))
        earlier = [look for look in self.index["looks"] if look < step]
        if earlier:
            files = [self.folder / f"{earlier[-1]}-{number}-pca.png" for number in range(1, len(maps) + 1)]
            before = [np.asarray(Image.open(file)) for file in files]
            sides = [tile_of(found.shape[:2]) for found in maps]
            rows = [picture[::side, ::side].reshape(-1, 3) / 255 for picture, side in zip(before, sides)]
            colours = as_before(colours, np.concatenate(rows))
        ends = np.cumsum([found.shape[0] * found.shape[1] for found in maps])[:-1]
        for number, (part, found) in enumerate(zip(np.split(colours, ends), maps), 1):
            pixels = (part.reshape(*found.shape[:2], 3) * 255).round().astype(np.uint8)
            self.save_map(f"{step}-{number}-pca", pixels)

    def save(self, name: str, picture: Image.Image) -> str:
        """Write a picture, large ones with loss, since all are inside the page; the name of its file."""
        large = max(picture.size) > EXACT
        file = self.folder / (f"{name}.jpg" if large else f"{name}.png")
        picture.save(file, **({"quality": 90, "subsampling": 0} if large else {"optimize": True}))
        return file.name

    def save_map(self, name: str, colours: np.ndarray) -> None:
        """Write a map (h, w, 3), each patch a square, without loss: the next look reads it."""
        tiles(colours).save(self.folder / f"{name}.png", optimize=True)

    def forget(self, index: dict[str, Any], looks: list[int]) -> None:
        """Keep some looks, and delete the pictures of all others."""
        index["looks"] = looks
        write_atomically(self.folder / INDEX, json.dumps(index, indent=1) + "\n")
        for file in self.folder.glob("*-*-*.png"):
            found = re.match(r"(\d+)-\d+-(?:attention|pca)\.png", file.name)
            if found and int(found[1]) not in looks:
                file.unlink()


def thinned(looks: list[int]) -> list[int]:
    """Every other one where there are too many; the first and the newest stay."""
    return looks if len(looks) <= LOOKS else sorted({*looks[::2], looks[-1]})


def tile_of(grid: tuple[int, ...]) -> int:
    """Pixels of a patch's side on a map."""
    return max(1, -(-SIDE // min(grid)))


def tiles(colours: np.ndarray) -> Image.Image:
    """A map (h, w, 3) as a picture in which each patch is a square."""
    side = tile_of(colours.shape[:2])
    return Image.fromarray(colours).resize((colours.shape[1] * side, colours.shape[0] * side), Image.Resampling.NEAREST)
