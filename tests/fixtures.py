"""A toy run that every test can change, and folders of images."""

import os

import numpy as np
import pytest
from PIL import Image

os.environ.setdefault("HF_HUB_OFFLINE", "1")
from dinomx_core.declare.discover import discover
from dinomx_core.planning.convert import choose, make_converter
from dinomx_core.testing.runs import TIMINGS, rows, steps, stream_of  # noqa: F401 - tests have them from here
from dinomx_core.testing.toy import changed, update  # noqa: F401

TOY = {
    "run": {"steps": 4, "batch_size": 8, "device": "cpu", "threads": 1},
    "loader": {"workers": 0},
    "data": {"name": "digits", "split": "train"},
    "backbone": {"name": "vit", "width": 16, "depth": 2, "heads": 2, "patch_size": 4, "drop_path": 0.1},
    "head": {"dino": {"prototypes": 32, "hidden": 16, "bottleneck": 8}},
    "loss": {"dino": {}},
    "augmentation": {
        "name": "multicrop",
        "mean": [0.3],
        "std": [0.35],
        "globals": {"count": 2, "size": 16, "area": [0.5, 1.0]},
        "locals": {"count": 2, "size": 8, "area": [0.2, 0.5]},
    },
    "optimizer": {"lr": 1e-3},
}

KNN = {
    "knn": {
        "every": 3,
        "k": [5],
        "bank": {"name": "digits", "split": "train"},
        "query": {"name": "digits", "split": "test"},
    }
}


@pytest.fixture
def toy(tmp_path):
    """A function of nested changes -> config dict of a tiny run below tmp_path. A value of None removes the key."""

    def make(**changes):
        return changed(TOY, {"run": {"out": str(tmp_path / "runs")}}, changes)

    return make


@pytest.fixture
def image_folder(tmp_path):
    """A folder of two classes, six 40 x 30 px RGB images each."""
    rng = np.random.default_rng(0)
    root = tmp_path / "images"
    for name in ("cats", "dogs"):
        (root / name).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(root / name / f"{number}.png")
    return root


def in_table(kind, table, *plugins):
    """A component as a config's table picks it."""
    registry = discover(plugins)
    return choose(make_converter(registry), registry, kind, table, kind, None)


@pytest.fixture
def model_folder(tmp_path):
    """A function (family, name, **options of hf) -> a folder with a small random model of that family, as `hf` saves it."""

    def make(family="dinov2", name="model", channels=3, image_size=32, **options):
        import torch

        from dinomx_core.builtin.families import Hf, hf_shape
        from dinomx_core.builtin.hf import build_hf

        chosen = Hf(**{"family": family, "width": 32, "depth": 3, "heads": 4, "patch_size": 8, **options})
        torch.manual_seed(0)
        backbone = build_hf(chosen, hf_shape(chosen, channels, image_size), image_size)
        for parameter in backbone.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        backbone.save(tmp_path / name)
        return tmp_path / name

    return make
