"""Do label-guided crops help the model find objects? Guided against unguided, and against crops guided to boxes of other images.

python benchmarks/guided_crops.py cutouts|brain [DATA] [--steps N] [--seeds 0 1 2] [--arms unguided guided random] [--set A.B=VALUE …]

DATA is the folder of `guided_data.py`. Every arm has the same steps, seeds and sizes of crops. Test images' labels only judge; attention is
the mean of all heads, and that of the one which points best on 600 training images. Prints means over the seeds and their standard
deviations, before training and after; `guided` figures differ from the others by what the last lines say, a seed's against the same
seed's. Runs that ended are read, not made again, and cut-off ones go on: several processes may make some of the seeds each, and one
more prints them all.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

from dinomx_core import api
from dinomx_core.artifacts import RunFolder

LOCALISATION = ("pointing", "mass_ratio", "iou", "corloc_attention")
FIGURES = (*(f"mean/{name}" for name in (*LOCALISATION, "corloc_lost", "corloc_tokencut")),
           *(f"chosen/{name}" for name in LOCALISATION), "knn/balanced_accuracy@10")  # fmt: skip
GUIDE: dict[str, dict[str, Any]] = {  # all crops of cut-outs, the local ones of places in a head
    "cutouts": {"probability": 1.0, "locals": 4, "globals": 2, "off_centre": 0.5},
    "brain": {"probability": 1.0, "locals": 4},
}
AREA = {"cutouts": [0.1, 0.7], "brain": [0.4, 1.0]}  # of global crops
STEPS = {"cutouts": 400, "brain": 600}
TARGET = {"name": "sinkhorn-knopp"}  # uses all prototypes from the first step, at 32 images a step, too
COLOUR = {"hue": 0.0, "grey": 0.0}  # objects are known by their colours, too


def config(name: str, data: Path, arm: str, seed: int, given: Any) -> dict[str, Any]:
    """One run."""
    rows = lambda part: {"name": "manifest", "path": str(data / f"{part}.csv"), "label": "label", "mask": "mask"}  # noqa: E731
    images = rows("train")
    if arm == "random":
        plain = {key: value for key, value in images.items() if key != "mask"}
        images = {"name": "marked", "images": plain, "boxes": str(data / "random.csv")}
    return {
        "recipe": "dinov1-small",
        "run": {
            "name": f"{name}-{arm}-{seed}", "out": str(given.out), "steps": given.steps or STEPS[name], "batch_size": 32, "seed": seed,
            "device": "cpu", "precision": "bf16", "threads": 1,
        },
        "data": images,
        "loader": {"workers": 0},  # a run a core
        "backbone": {"width": 96, "depth": 4, "heads": 3, "patch_size": 8},
        "head": {"dino": {"prototypes": 1024}},
        "loss": {"dino": {"target": TARGET}},
        "augmentation": {
            "globals": {"size": 64, "area": AREA[name], **COLOUR},
            "locals": {"size": 32, "area": [0.05, 0.25], **COLOUR},
            "resize": 64,
            **({} if arm == "unguided" else {"where": {"name": "label-guided", **GUIDE[name]}}),
        },
        "checkpoint": {"every": "100%", "keep_last": 1},
        "evaluate": {
            "knn": {"every": "100%", "k": [10], "bank": rows("train"), "query": rows("test")},
            "mean": {"name": "localisation", "every": "100%", "images": rows("test")},  # of all heads
            "chosen": {"name": "localisation", "every": "100%", "images": rows("test"), "head": "chosen",
                       "validation": rows("validation"), "boxes": ["attention"]},
        },
    }  # fmt: skip


def main() -> None:
    """Parse, run, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=("cutouts", "brain"))
    parser.add_argument("data", nargs="?", type=Path, default=Path("data"))
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=["unguided", "guided", "random"])
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--out", type=Path, default=Path("runs/guided"))
    given = parser.parse_args()
    ends: dict[str, list[dict[str, float]]] = {arm: [] for arm in given.arms}
    starts: dict[str, list[dict[str, float]]] = {arm: [] for arm in given.arms}
    for seed in given.seeds:  # arm by arm within a seed, so that an early end leaves whole comparisons
        for arm in given.arms:
            mine = [text for text in given.settings if arm != "unguided" or "augmentation.where" not in text]
            done = api.run(config(given.name, given.data / given.name, arm, seed, given), overrides=mine, resume=True)
            for verdict in RunFolder(done.folder).rows("health"):
                print(f"seed {seed} {arm:9} step {verdict['step']}: {verdict['message']}", flush=True)
            rows = RunFolder(done.folder).rows("evaluations")
            starts[arm].append(rows[0])
            ends[arm].append(rows[-1])
            found = " ".join(f"{rows[-1][figure]:.3f}" for figure in FIGURES)
            print(f"seed {seed} {arm:9} {found}", flush=True)
    print(f"{'':9} {'':8}" + " ".join(f"{figure:>24}" for figure in FIGURES))
    for arm in given.arms:
        for when, rows in (("before", starts[arm]), ("after", ends[arm])):
            print(f"{arm:9} {when:8}" + " ".join(spread([row[figure] for row in rows]) for figure in FIGURES))
    for other in given.arms:
        if other != "guided" and "guided" in ends:
            gains = [[g[f] - o[f] for g, o in zip(ends["guided"], ends[other])] for f in FIGURES]
            print(f"guided - {other:9}" + " ".join(spread(gain) for gain in gains))


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{statistics.fmean(values):15.3f} +- {statistics.pstdev(values):.3f}"


if __name__ == "__main__":
    main()
