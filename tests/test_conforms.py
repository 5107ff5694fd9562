"""The contracts, of what the core ships."""

import csv
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dinomx_core import api
from dinomx_core.testing import conformance
from tests.wheels import ROOT

pytestmark = pytest.mark.slow
PLACE = tempfile.TemporaryDirectory()


@pytest.fixture(autouse=True)
def from_the_top(monkeypatch):
    monkeypatch.chdir(ROOT)


def images(root):
    """Forty images of two classes in a folder, and manifests of both halves with masks."""
    rng = np.random.default_rng(0)
    halves = {"bank": [], "query": []}
    for number in range(40):
        label = "odd" if number % 2 else "even"
        mask = np.kron(rng.integers(0, 3, (4, 4)), np.ones((8, 8), np.uint8)).astype(np.uint8)
        for folder, picture in (("images", 70 * mask + rng.integers(0, 30, mask.shape)), ("masks", mask)):
            (root / folder / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture.astype(np.uint8)).save(root / folder / label / f"{number}.png")
        name = f"{label}/{number}.png"
        halves["bank" if number % 4 < 2 else "query"].append([f"images/{name}", label, f"masks/{name}"])
    for half, rows in halves.items():
        with (root / f"{half}.csv").open("w") as file:
            csv.writer(file).writerows([["path", "label", "mask"], *rows])
    return {
        half: {"name": "manifest", "path": str(root / f"{half}.csv"), "label": "label", "mask": "mask", "channels": 1}
        for half in halves
    }


def sources(root):
    """The same for data sets that others made: tars, rows and an archive."""
    import datasets

    config = {"recipe": "dinov1-small", "data": {"name": "image-folder", "path": str(root / "images")}}
    (root / "tars.toml").write_text(api.to_toml(config))
    api.pack(root / "tars.toml", root / "tars", shard_size=15)
    pixels = np.random.default_rng(1).integers(0, 256, (12, 28, 28), dtype=np.uint8)
    rows = {"image": [Image.fromarray(image) for image in pixels], "label": ["a", "b"] * 6}
    datasets.Dataset.from_dict(rows).save_to_disk(str(root / "rows"))
    parts = {"train_images": pixels, "train_labels": np.arange(12, dtype=np.uint8)[:, None] % 3}
    parts |= {name.replace("train", part): array for name, array in parts.items() for part in ("val", "test")}
    np.savez(root / "archive.npz", **parts)


def options():
    """Images for whatever needs some of the user's."""
    root = Path(PLACE.name)
    halves = images(root)
    sources(root)
    folder = {"name": "image-folder", "path": str(root / "images")}
    manifest = {key: value for key, value in halves["bank"].items() if key != "name"}
    return {
        "backbone hf": {"family": "dinov2_with_registers", "width": 16, "depth": 2, "heads": 2, "patch_size": 4},
        "dataset image-folder": {"path": folder["path"]},
        "dataset manifest": manifest,
        "dataset marked": {"images": folder, "masks": str(root / "masks" / "{name}.png")},
        "dataset mix": {"sources": {"one": folder, "two": {"name": "planes", "channels": 3}}},
        "dataset shards": {"path": str(root / "tars")},
        "dataset hf-dataset": {"path": str(root / "rows")},
        "dataset medmnist": {"path": str(root / "archive.npz")},
        "evaluator dense-knn": {**halves, "k": 3},
        "evaluator dense-linear": {**halves, "epochs": 2},
    }


test_conforms = conformance("builtin", options)
