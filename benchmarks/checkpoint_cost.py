"""What a checkpoint costs: seconds and bytes to write, seconds to check and read again, against model size.

python benchmarks/checkpoint_cost.py [FOLDER]
torchrun --nproc-per-node 2 benchmarks/checkpoint_cost.py FOLDER      (in parts, by fsdp)
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import dinomx_core
from dinomx_core.training.build import build
from dinomx_core.training.checkpoint import fault_of, load_checkpoint, save_checkpoint
from dinomx_core.training.data import MicroBatches, make_loader
from dinomx_core.training.loop import iter_views, make_images, train_step

SIZES = {"ViT-Ti": (192, 3), "ViT-S": (384, 6), "ViT-B": (768, 12)}
ROUNDS = 3


def main(folder: Path) -> None:
    """Print one line a model: everything a run keeps (student, teacher, head of 65,536 prototypes, two moments)."""
    print("| model | parameters of backbone and head | bytes | write s | check and read s |\n|---|---|---|---|---|")
    for name, (width, heads) in SIZES.items():
        plan = dinomx_core.plan(
            {
                "recipe": "dinov1-small",
                "run": {"steps": 10, "batch_size": 4, "device": "cpu"},
                "loader": {"workers": 0},
                "data": {"name": "digits"},
                "backbone": {"width": width, "heads": heads, "depth": 12, "patch_size": 16},
                "head": {"dino": {"hidden": 2048, "bottleneck": 256, "prototypes": 65536}},
                "augmentation": {"mean": [0.3], "std": [0.3]},
                "parallelism": {"name": "fsdp" if "WORLD_SIZE" in os.environ else "single"},
            }
        )
        parts = build(plan)
        images = make_images(parts)
        loader = make_loader(images, MicroBatches(plan.batch, parts.parallelism.rank, 0, 1), plan.spec.loader, False)
        train_step(parts, iter_views(loader, parts.device), 0)  # so that there are moments
        writes, reads = [], []
        for step in range(1, ROUNDS + 1):
            started = time.perf_counter()
            save_checkpoint(parts, folder, step)
            writes.append(time.perf_counter() - started)
            started = time.perf_counter()
            assert fault_of(folder / str(step)) == ""
            load_checkpoint(parts, folder / str(step))
            reads.append(time.perf_counter() - started)
        if parts.parallelism.rank:
            continue
        size = sum(file.stat().st_size for file in (folder / str(ROUNDS)).iterdir())
        count = sum(p.numel() for p in parts.student.parameters())
        print(f"| {name} | {count / 1e6:.1f} M | {size / 1e6:.0f} MB | {median(writes):.2f} | {median(reads):.2f} |")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
