"""A trained backbone with its preprocessing: images in, tokens out."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dinomx_core.builtin.single import SingleProcess
from dinomx_core.declare.discover import Registry
from dinomx_core.declare.facts import Preprocessing
from dinomx_core.declare.reading import PlaneReader
from dinomx_core.declare.values import Chosen
from dinomx_core.errors import DataError
from dinomx_core.folders import DESCRIPTION
from dinomx_core.planning.foreign import Foreign
from dinomx_core.planning.origin import Reading, data_reading, describe, described, described_reading
from dinomx_core.planning.plan import Plan, units_of
from dinomx_core.training.backbone import Backbone
from dinomx_core.training.build import build_backbone
from dinomx_core.training.construct import construct
from dinomx_core.training.contracts import Encoder
from dinomx_core.training.evaluation import make_encoder
from dinomx_core.training.flow import Item, Tokens
from dinomx_core.training.images import from_array, from_pillow, from_plane
from dinomx_core.training.opening import opened, read_weights


class Model:
    """What `dinomx_core.load` returns.

    `backbone` is the torch module, `preprocessing` how images go in, `channels` how many the model takes; `intensity` says what their
    numbers mean, `reading` how files of the kind that it was trained on become images; `about` is what its folder says of it, `notes`
    what to say of how it was opened.
    """

    def __init__(
        self, backbone: Backbone, preprocessing: Preprocessing, channels: int, intensity: Chosen, reading: Reading,
        about: dict[str, Any], notes: tuple[str, ...] = (),
    ):  # fmt: skip
        self.backbone, self.preprocessing, self.channels, self.about = backbone.eval(), preprocessing, channels, about
        self.intensity, self.reading, self.notes = intensity, reading, notes
        self._reader: PlaneReader = construct(reading.reader)
        self._encoder = self._make_encoder(torch.device("cpu"))

    def _make_encoder(self, device: torch.device) -> Encoder:
        alone, intensity = SingleProcess(None, device), construct(self.intensity)
        return make_encoder(self.backbone, self.preprocessing, self.channels, alone, intensity)

    @classmethod
    def open(cls, folder: Path, network: str, registry: Registry) -> "Model":
        """Rebuild the backbone of an export or a checkpoint (`network`: "teacher" or "student") and load its weights."""
        origin = describe(folder, registry)
        about = json.loads((folder / DESCRIPTION).read_text("utf-8"))
        how = about["preprocessing"]
        preprocessing = Preprocessing(how["resize"], how["crop"], tuple(how["mean"]), tuple(how["std"]))
        intensity, reading = described(folder, "intensity", registry), described_reading(folder, registry)
        return cls(opened(origin, folder, network), preprocessing, origin.channels, intensity, reading, about)

    @classmethod
    def of_weights(cls, found: Foreign) -> "Model":
        """Weights of others, with what their folder says of images."""
        return cls(
            read_weights(found),
            found.preprocessing,
            found.shape.channels,
            found.intensity,
            found.reading,
            {},
            found.notes,
        )

    @classmethod
    def of_plan(cls, plan: Plan) -> "Model":
        """A plan's backbone as training would start from it."""
        backbone = build_backbone(plan)
        backbone.warm_start()
        return cls(
            backbone,
            plan.preprocessing,
            plan.data.channels,
            plan.spec.intensity,
            data_reading(plan.spec, plan.registry),
            {"units": units_of(plan)},
        )

    def to(self, device: torch.device) -> "Model":
        """Move the model; returns itself."""
        self.backbone.to(device)
        self._encoder = self._make_encoder(device)
        return self

    def __call__(self, images: Sequence[str | Path | Image.Image | np.ndarray | torch.Tensor]) -> Tokens:
        """Tokens of a list of images: file paths, PIL images, arrays (H, W) or (H, W, C), or tensors (C, H, W); of arrays and tensors in
        the units that the model was trained on."""
        if isinstance(images, (str, Path)) or len(images) == 0:
            raise DataError("expected a list of one or more images")
        return self.encode([self.prepare(self._read(image)) for image in images])

    def encode(self, items: Sequence[Item]) -> Tokens:
        """Tokens of prepared images."""
        return self._encoder.encode(items)

    def prepare(self, item: Item) -> Item:
        """An image as it was read -> one of known meaning and channels. Raises DataError naming it."""
        return self._encoder.prepare(item)

    def _read(self, image: str | Path | Image.Image | np.ndarray | torch.Tensor) -> Item:
        units = self.about.get("units", "")  # arrays have none of their own
        if isinstance(image, torch.Tensor):
            return Item(image, units=units)
        if not isinstance(image, (str, Path)):
            pixels = from_pillow(image) if isinstance(image, Image.Image) else from_array(np.array(image))
            return Item(pixels, units=units)
        if self.reading.several:
            raise DataError(
                f"{image}: this model's images are made of several planes or files; give them as arrays, or use embed"
            )
        try:
            plane = self._reader.read(Path(image))
        except DataError as error:
            raise DataError(f"{image}: {error}") from None
        return Item(from_plane(plane), None, str(image), "", plane.units, plane.full)
