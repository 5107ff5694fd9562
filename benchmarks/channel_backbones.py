"""k-NN of backbones that see channels apart against one whose patch projection was inflated, all from the same RGB weights.

python benchmarks/channel_backbones.py WEIGHTS [DATA] [--steps 100] [--only fields] [--seeds 3] [--out runs/channels]

WEIGHTS is a Hugging Face folder of a model for RGB images of 32 px with patches of 4 (the export of examples/cifar10.toml), DATA the folder
of `examples/fetch.py cortex` and `fields` (data). Fields have every tenth band and every third labelled pixel; the query sets are
held-out stripes. Prints for each data set and backbone the figures before training and after: means over the seeds, and their spread.
"""

import argparse
import csv
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from dinomx_core import api
from dinomx_core.artifacts import RunFolder

BANDS, PIXELS = 10, 3  # every tenth band, every third pixel
FIGURES = ("knn/accuracy@10", "knn/balanced_accuracy@10", "knn/auroc@10")


def thinned(folder: Path) -> Path:
    """A manifest of some pixels of some bands, beside the whole."""
    file = folder / "some.csv"
    if not file.is_file():
        np.save(folder / "some_bands.npy", np.load(folder / "Indian_pines_corrected.npy")[:, :, ::BANDS])
        rows = list(csv.reader((folder / "pixels.csv").open(encoding="utf-8")))
        kept = [["some_bands.npy", *row[1:]] for row in rows[1::PIXELS]]
        with file.open("w", newline="", encoding="utf-8") as text:
            csv.writer(text).writerows([rows[0], *kept])
    return file


def data_sets(folder: Path) -> dict[str, dict[str, Any]]:
    """Config tables of each data set: data, intensity, augmentation."""
    fields = {
        "name": "manifest", "path": str(thinned(folder / "fields")), "centre": ["x", "y"], "side": 16, "label": "class", "group": "rows",
        "holdout": 0.3,
    }  # fmt: skip
    cortex = {
        "name": "manifest", "path": str(folder / "cortex" / "places.csv"), "centre": ["x", "y"], "side": 48, "label": "layer",
        "group": "stripe", "holdout": 0.3, "split_seed": 1, "reader": {"name": "tiff"},
    }  # fmt: skip
    return {
        "cortex": {
            "data": cortex,
            "intensity": {"name": "percentiles"},
            "augmentation": {"name": "microscopy", "globals": {"size": 32}, "locals": {"size": 16, "count": 4}},
        },
        "fields": {
            "data": fields,
            "intensity": {"name": "full-range", "range": [0, 9700]},
            "augmentation": {
                "name": "multispectral",
                "globals": {"size": 16, "area": [0.5, 1.0]},
                "locals": {"size": 8, "count": 4, "area": [0.2, 0.5]},
            },
        },
    }


def backbones(weights: str) -> dict[str, tuple[dict[str, Any], str]]:
    """Backbone and channels of the crops of each arm."""
    inner = {"name": "hf", "weights": weights, "other_channels": "average"}
    return {
        "inflated": (inner, "all"),
        "channel-tokens": ({"name": "channel-tokens", "inner": inner}, "locals"),
        "bag-of-channels": ({"name": "bag-of-channels", "inner": inner}, "one"),
    }


def config(tables: dict[str, Any], backbone: dict[str, Any], channels: str, name: str, given: Any, seed: int) -> dict:
    """One run."""
    part = lambda which: {**tables["data"], "part": which}  # noqa: E731
    return {
        "recipe": "dinov1-small",
        "run": {
            "name": name,
            "out": str(given.out),
            "steps": given.steps,
            "batch_size": 32,
            "seed": seed,
            "device": "cpu",
        },
        "data": part("train"),
        "intensity": tables["intensity"],
        "augmentation": {**tables["augmentation"], "channels": channels},
        "backbone": backbone,
        "optimizer": {"lr": {"peak": 3e-4}},
        "checkpoint": {"every": "100%", "keep_last": 1},
        "evaluate": {"knn": {"every": "100%", "k": [10], "bank": part("train"), "query": part("test")}},
    }


def main() -> None:
    """Parse, run, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("data", nargs="?", type=Path, default=Path("data"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--only", choices=("cortex", "fields"), help="one of the data sets")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/channels"))
    given = parser.parse_args()
    found = data_sets(given.data)
    for name, tables in found.items() if given.only is None else [(given.only, found[given.only])]:
        for label, (backbone, channels) in backbones(str(given.weights.absolute())).items():
            before, after, seconds = [], [], []
            for seed in range(given.seeds):
                run = f"{name}-{label.replace(', ', '-')}-{seed}"
                done = api.run(config(tables, backbone, channels, run, given, seed), overwrite=True)
                rows = RunFolder(done.folder).rows("evaluations")
                before.append([rows[0][figure] for figure in FIGURES])
                after.append([rows[-1][figure] for figure in FIGURES])
                seconds += [row["seconds"] for row in RunFolder(done.folder).rows("metrics")]
            told = [
                f"{statistics.fmean(first):.3f} -> {statistics.fmean(last):.3f} +- {statistics.pstdev(last):.3f}"
                for first, last in zip(zip(*before), zip(*after))
            ]
            print(f"{name:8} {label:24} {'   '.join(told)}   {statistics.median(seconds):.2f} s a step", flush=True)


if __name__ == "__main__":
    main()
