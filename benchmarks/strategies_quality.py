"""What a small model is worth after it has gone on with other images: whole, with LoRA, with frozen blocks, and as the teacher of a
student of half its width; equal steps, several seeds.

    python benchmarks/strategies_quality.py RUN [--set KEY=VALUE ...]

RUN is the run that all start from (benchmarks/adapt.toml says how it is made). Prints k-NN and linear accuracy before and after, as the
mean and the standard deviation over the seeds; each run is left in runs/.
"""

import argparse
import json
import statistics

from dinomx_core import api

SEEDS = (0, 1, 2)
HALF = ["backbone.width=32", "backbone.heads=1", "backbone.init_std=0.18"]
# The learning rates are those that are usual for each: adapters and fresh students take larger ones than whole models.
VARIANTS = {
    "whole": ["run.start=START", "optimizer.lr=5e-4"],
    "lora": ["run.start=START", 'strategies=["lora"]', "optimizer.lr=2e-3"],
    "freeze": ["run.start=START", 'strategies=["freeze"]', "strategy.freeze.blocks=2", "optimizer.lr=5e-4"],
    "distilled to half the width": [
        'losses=["distill-features"]', "loss.distill-features.teacher=START", "optimizer.lr=2e-3", *HALF,
    ],
    "half the width, not distilled": ["optimizer.lr=1e-3", *HALF],
}  # fmt: skip
FIGURES = ("knn/accuracy@20", "linear/accuracy")


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def main() -> None:
    """Run them all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("start")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    given = parser.parse_args()
    print(f"{'':<32}" + "".join(f"{name:<44}" for name in FIGURES))
    for name, words in VARIANTS.items():
        before: dict[str, list[float]] = {figure: [] for figure in FIGURES}
        after: dict[str, list[float]] = {figure: [] for figure in FIGURES}
        for seed in SEEDS:
            sets = [word.replace("START", given.start) for word in words]
            label = f"adapt-{name.replace(' ', '-').replace(',', '')}-{seed}"
            own = [f"run.seed={seed}", f"run.name={label}"]
            result = api.run("benchmarks/adapt.toml", overrides=[*given.overrides, *sets, *own], overwrite=True)
            rows = [json.loads(line) for line in (result.folder / "evaluations.jsonl").read_text().splitlines()]
            first, last = rows[0], rows[-1]
            for figure in FIGURES:
                before[figure].append(first[figure])
                after[figure].append(last[figure])
        print(f"{name:<32}" + "".join(f"{spread(before[f])} -> {spread(after[f]):<24}" for f in FIGURES), flush=True)


if __name__ == "__main__":
    main()
