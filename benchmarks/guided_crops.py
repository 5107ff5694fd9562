"""Do label-guided crops help the model find objects? Guided against unguided, and against crops guided to boxes of other images.

python benchmarks/guided_crops.py cutouts|brain|head [DATA] [--steps N] [--seeds 0 1 2] [--arms unguided guided random] [--set A.B=VALUE …]
    [--weights FOLDER]

DATA is the folder of `guided_data.py`. `head` trains adapters of a model that others have trained (`focus_weights.py`); the other two are
trained from scratch. Every arm has the same steps, seeds and sizes of crops. Test images' labels only judge; attention is the mean of
all heads, and from scratch also that of the one which points best on 600 training images. Prints means over the seeds and their standard
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
GUIDE: dict[str, dict[str, Any]] = {  # all crops, but where places in a head are learnt from scratch the local ones
    "cutouts": {"probability": 1.0, "locals": 4, "globals": 2, "off_centre": 0.5},
    "brain": {"probability": 1.0, "locals": 4},
    "head": {"probability": 1.0, "locals": 4, "globals": 2, "off_centre": 0.5},
}
AREA = {"cutouts": [0.1, 0.7], "brain": [0.4, 1.0], "head": [0.1, 0.7]}  # of global crops
STEPS = {"cutouts": 400, "brain": 600, "head": 100}
SCRATCH: dict[str, Any] = {"backbone": {"width": 96, "depth": 4, "heads": 3, "patch_size": 8}}
BOXES = ["attention", "lost", "tokencut"]
ROLES = ["query", "key", "value", "output", "mlp"]
TARGET = {"name": "sinkhorn-knopp"}  # uses all prototypes from the first step, at few images a step, too
COLOUR = {"hue": 0.0, "grey": 0.0}  # objects are known by their colours, too


def config(name: str, data: Path, arm: str, seed: int, given: Any) -> dict[str, Any]:
    """One run."""
    rows = lambda part: {"name": "manifest", "path": str(data / f"{part}.csv"), "label": "label", "mask": "mask"}  # noqa: E731
    images = rows("train")
    if arm == "random":
        plain = {key: value for key, value in images.items() if key != "mask"}
        images = {"name": "marked", "images": plain, "boxes": str(data / "random.csv")}
    tuned = name == "head"
    size = 112 if tuned else 64
    chosen = {  # the head that points best; "mean" is of all heads
        "name": "localisation", "every": "100%", "images": rows("test"), "head": "chosen",
        "validation": rows("validation"), "boxes": BOXES[:1],
    }  # fmt: skip
    model = SCRATCH
    if tuned:
        model = {
            "backbone": {"name": "hf", "weights": str(given.weights)},
            "strategies": ["lora"],
            "strategy": {"lora": {"rank": 16, "roles": ROLES}},
        }
    return {
        "recipe": "dinov1-small",
        "run": {
            "name": f"{name}-{arm}-{seed}", "out": str(given.out), "steps": given.steps or STEPS[name],
            "batch_size": 16 if tuned else 32, "seed": seed, "device": "cpu", "precision": "bf16", "threads": 1,
        },
        "data": images,
        "loader": {"workers": 0},  # a run a core
        **model,
        "head": {"dino": {"prototypes": 1024}},
        "loss": {"dino": {"target": TARGET}},
        "augmentation": {
            "globals": {"size": size, "area": AREA[name], **COLOUR},
            "locals": {"size": size // 2, "area": [0.05, 0.25], **COLOUR},
            "resize": size,
            **({} if arm == "unguided" else {"where": {"name": "label-guided", **GUIDE[name]}}),
        },
        "checkpoint": {"every": "100%", "keep_last": 1},
        "evaluate": {
            "knn": {"every": "100%", "k": [10], "bank": rows("train"), "query": rows("test")},
            "mean": {"name": "localisation", "every": "100%", "images": rows("test"), "boxes": BOXES[:1] if tuned else BOXES},
            **({} if tuned else {"chosen": chosen}),
        },
    }  # fmt: skip


def main() -> None:
    """Parse, run, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=tuple(GUIDE))
    parser.add_argument("data", nargs="?", type=Path, default=Path("data"))
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=["unguided", "guided", "random"])
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--out", type=Path, default=Path("runs/guided"))
    parser.add_argument("--weights", type=Path, help="folder of the model that is tuned")
    given = parser.parse_args()
    if (given.name == "head") != bool(given.weights):
        parser.error("head, and nothing else, takes --weights FOLDER")
    ends: dict[str, list[dict[str, float]]] = {arm: [] for arm in given.arms}
    starts: dict[str, list[dict[str, float]]] = {arm: [] for arm in given.arms}
    for seed in given.seeds:  # arm by arm within a seed, so that an early end leaves whole comparisons
        for arm in given.arms:
            mine = [text for text in given.settings if arm != "unguided" or "augmentation.where" not in text]
            done = api.run(
                config(given.name, given.data / given.name, arm, seed, given),
                overrides=mine,
                resume=True,
            )
            for verdict in RunFolder(done.folder).rows("health"):
                print(f"seed {seed} {arm:9} step {verdict['step']}: {verdict['message']}", flush=True)
            rows = RunFolder(done.folder).rows("evaluations")
            starts[arm].append(rows[0])
            ends[arm].append(rows[-1])
            figures = [figure for figure in FIGURES if figure in rows[-1]]
            found = " ".join(f"{rows[-1][figure]:.3f}" for figure in figures)
            print(f"seed {seed} {arm:9} {found}", flush=True)
    print(f"{'':9} {'':8}" + " ".join(f"{figure:>24}" for figure in figures))
    for arm in given.arms:
        for when, rows in (("before", starts[arm]), ("after", ends[arm])):
            print(f"{arm:9} {when:8}" + " ".join(spread([row[figure] for row in rows]) for figure in figures))
    for other in given.arms:
        if other != "guided" and "guided" in ends:
            gains = [[g[f] - o[f] for g, o in zip(ends["guided"], ends[other])] for f in figures]
            print(f"guided - {other:9}" + " ".join(spread(gain) for gain in gains))


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{statistics.fmean(values):15.3f} +- {statistics.pstdev(values):.3f}"


if __name__ == "__main__":
    main()
