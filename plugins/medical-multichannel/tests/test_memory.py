"""Reading and augmenting for long takes no more memory than for short: the loader's workers, and the process that they feed."""

import nibabel
import numpy as np
import psutil
import pytest
import tifffile
from PIL import Image

from dinomx_core import api
from dinomx_core.training.construct import construct
from dinomx_core.training.data import MicroBatches, TrainingImages, make_loader

IMAGES, WARM, BATCH, FILES, SIDE = 10_000, 3_000, 20, 40, 24
MIB = 2**20
NOISE = 6 * MIB  # bytes that all processes together may grow by: less than 1 kB an image


def write(folder, kind):
    """Small files of a kind, and the tables that read them."""
    rng = np.random.default_rng(0)
    for number in range(FILES):
        pixels = rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        if kind == "image":
            Image.fromarray(pixels).save(folder / f"{number}.png")
        elif kind == "tiff":
            tifffile.imwrite(
                folder / f"{number}.ome.tif",
                pixels.transpose(2, 0, 1).astype(np.uint16),
                tile=(16, 16),
                metadata={"axes": "CYX"},
            )
        else:
            nibabel.save(nibabel.Nifti1Image(pixels.astype(np.float32), np.eye(4)), folder / f"{number}.nii.gz")
    data = {"name": "image-folder", "path": str(folder), "split": None, "reader": {"name": kind}}
    if kind == "image":
        return {"data": data}
    changes = {"name": "mri", "mean": None, "std": None, "rotate": 10.0, "bias": 0.5}
    return {"data": data, "intensity": {"name": "percentiles"}, "augmentation": changes}


def taken(processes):
    """Resident bytes of processes together."""
    return sum(process.memory_info().rss for process in processes)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["image", "nifti", "tiff"])
def test_ten_thousand_images_leave_no_memory_behind(toy, tmp_path, kind):
    plan = api.plan(
        toy(run={"batch_size": BATCH, "steps": IMAGES // BATCH}, loader={"workers": 2}, **write(tmp_path, kind))
    )
    spec = plan.spec
    images = TrainingImages(
        construct(spec.data),
        construct(spec.augmentation, plan.data.channels),
        plan.seed,
        True,
        BATCH,
        construct(spec.intensity),
    )
    batches = iter(make_loader(images, MicroBatches(plan.batch, 0, 0, plan.steps), spec.loader, False))
    processes = [psutil.Process(), *(psutil.Process(worker.pid) for worker in batches._workers)]
    sizes = {}
    for number, views in enumerate(batches, 1):
        assert not views.unreadable
        if number * BATCH in (WARM, IMAGES):
            sizes[number * BATCH] = taken(processes)
    grown = sizes[IMAGES] - sizes[WARM]
    print(f"{kind}: {sizes[WARM] / MIB:.0f} MiB, then {grown / MIB:+.1f}")
    assert len(processes) == 3
    assert grown < NOISE, f"{grown / MIB:.1f} MiB more after {IMAGES - WARM} images"
