"""Images with objects and their masks, for `guided_crops.py`: `python benchmarks/guided_data.py cutouts|nuclei|cells [FOLDER] [--raw RAW]`.

cutouts   photo-like cut-outs (Debian package tuxpaint-stamps-default, GPL-2) on textures (images of the PyPI package scikit-image):
          96 x 96 pixels, one object each; a quarter of the objects is in the test set only
nuclei    places of 64 x 64 pixels in one fluorescence image of 512 x 512 with 183 nuclei (PyPI package stardist, BSD-3); the test set is
          its right third
cells     places of 64 x 64 pixels in ten frames of 210 x 576 pixels of a scratch assay in oblique light, masks from its fluorescence
          (PyPI package ndev-sampledata, BSD-3); the test set is their right third

RAW holds the packages' files: stamps/ (usr/share/tuxpaint/stamps of the one), skimage/data/, stardist/data/images/ and
ndev_sampledata/samples/ of the others. Writes
FOLDER/NAME/{train,test}.csv with columns path, mask, label, group, and the boxes of other images in FOLDER/NAME/random.csv.
"""

import argparse
import csv
import random
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from scipy import ndimage

SIDE, TRAIN, TEST = 96, 3000, 600
SIZES = (0.3, 0.6)  # of an object's longer side, as a share of the image's
KINDS = ("animals", "food", "town", "vehicles", "plants", "household")
TEXTURES = ("brick.png", "grass.png", "gravel.png")
GREY, CONTRAST = (110, 110, 110), 0.4  # what textures are blended with, and how much is left of them
TILE = 64


def cutouts(raw: Path, out: Path) -> None:
    """Composites."""
    rng = random.Random(0)
    stamps = [
        (kind, file)
        for kind in KINDS
        for file in sorted((raw / "stamps" / kind).rglob("*.png"))
        if "cartoon" not in str(file)
    ]
    stamps = [(kind, file, picture) for kind, file in stamps if (picture := stamp(file)) is not None]
    rng.shuffle(stamps)
    textures = [Image.open(raw / "skimage/data" / name).convert("RGB") for name in TEXTURES]
    parts = {"test": stamps[: len(stamps) // 4], "train": stamps[len(stamps) // 4 :]}
    print({name: len(found) for name, found in parts.items()}, "objects")
    for name, count in (("train", TRAIN), ("test", TEST)):
        rows = []
        for number in range(count):
            kind, file, picture = parts[name][number % len(parts[name])]
            image, mask = composite(picture, rng.choice(textures), rng)
            rows.append((*write(out, f"{name}{number:04}", image, mask), kind, file.stem))
        table(out / f"{name}.csv", rows)


def stamp(file: Path) -> Image.Image | None:
    """A cut-out without its empty margin; None where it is a whole picture or hardly anything."""
    picture = Image.open(file).convert("RGBA")
    alpha = picture.getchannel("A")
    box = alpha.point(lambda value: 255 * (value > 127)).getbbox()
    if box is None:
        return None
    covered = np.asarray(alpha.crop(box)) > 127
    return picture.crop(box) if 0.15 < covered.mean() < 0.95 else None


def composite(picture: Image.Image, texture: Image.Image, rng: random.Random) -> tuple[Image.Image, Image.Image]:
    """An object on a pale piece of a texture, and its mask."""
    side = rng.randint(SIDE, min(texture.size))
    left, top = rng.randint(0, texture.width - side), rng.randint(0, texture.height - side)
    piece = texture.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    image = Image.blend(Image.new("RGB", (SIDE, SIDE), GREY), piece, CONTRAST)
    scale = SIDE * rng.uniform(*SIZES) / max(picture.size)
    small = picture.resize(tuple(max(6, round(length * scale)) for length in picture.size), Image.Resampling.LANCZOS)
    place = rng.randint(0, SIDE - small.width), rng.randint(0, SIDE - small.height)
    image.paste(small, place, small)
    mask = Image.new("L", (SIDE, SIDE))
    mask.paste(small.getchannel("A").point(lambda value: int(value > 127)), place)
    return image, mask


def nuclei(raw: Path, out: Path) -> None:
    """Places in the one image."""
    pixels = np.asarray(Image.open(raw / "stardist/data/images/img2d.tif")).astype(float)
    marked = np.asarray(Image.open(raw / "stardist/data/images/mask2d.tif")) > 0
    places(out, [grey(pixels)], [marked], 340, (0.02, 0.4))


def cells(raw: Path, out: Path) -> None:
    """Places in the frames of one film, at the edges of a gap that closes: cells in oblique light, masks from their fluorescence."""
    film = tifffile.imread(raw / "ndev_sampledata/samples/scratch-assay-labeled-10T-2Ch.tiff")
    places(out, [grey(frame.astype(float)) for frame in film[1]], [frame > 0 for frame in film[3]], 384, (0.05, 0.4))


def grey(pixels: np.ndarray) -> np.ndarray:
    """uint8 between the 0.5th and the 99.5th percentile."""
    low, high = np.percentile(pixels, (0.5, 99.5))
    return (np.clip((pixels - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def places(
    out: Path, frames: list[np.ndarray], masks: list[np.ndarray], split: int, covered: tuple[float, float]
) -> None:
    """Tiles of frames (H, W) of which some share is object, the test set's from column `split` on; the label is how much of a tile objects
    cover: least, middle, most."""
    rng = random.Random(0)
    height, width = frames[0].shape
    for name, count, (first, last) in (("train", TRAIN, (0, split)), ("test", TEST, (split, width))):
        found = []
        while len(found) < count:
            frame, top, left = (
                rng.randrange(len(frames)),
                rng.randint(0, height - TILE),
                rng.randint(first, last - TILE),
            )
            place = slice(top, top + TILE), slice(left, left + TILE)
            if covered[0] < masks[frame][place].mean() < covered[1]:
                found.append((frames[frame][place], masks[frame][place]))
        edges = np.quantile([mask.mean() for _, mask in found], (1 / 3, 2 / 3))
        rows = []
        for number, (image, mask) in enumerate(found):
            files = write(out, f"{name}{number:04}", Image.fromarray(image), Image.fromarray(mask.astype(np.uint8)))
            rows.append((*files, ("least", "middle", "most")[int(np.searchsorted(edges, mask.mean()))], name))
        table(out / f"{name}.csv", rows)


def write(out: Path, name: str, image: Image.Image, mask: Image.Image) -> tuple[str, str]:
    """Files of an image and its mask, as a manifest names them."""
    for folder, picture in (("images", image), ("masks", mask)):
        (out / folder).mkdir(parents=True, exist_ok=True)
        picture.save(out / folder / f"{name}.png")
    return f"images/{name}.png", f"masks/{name}.png"


def table(file: Path, rows: list[tuple[str, ...]]) -> None:
    """A manifest; and for the training set boxes of the same sizes that have nothing to do with the image: another image's."""
    with file.open("w", newline="", encoding="utf-8") as text:
        csv.writer(text).writerows([("path", "mask", "label", "group"), *rows])
    print(file, len(rows))
    if file.stem != "train":
        return
    with (file.parent / "random.csv").open("w", newline="", encoding="utf-8") as text:
        writer = csv.writer(text)
        writer.writerow(("image", "left", "top", "width", "height"))
        for number, (path, *_) in enumerate(rows):
            mask = np.asarray(Image.open(file.parent / rows[(number * 7 + len(rows) // 2) % len(rows)][1])) > 0
            for down, across in ndimage.find_objects(ndimage.label(mask)[0]):
                writer.writerow((path, across.start, down.start, across.stop - across.start, down.stop - down.start))


def main() -> None:
    """Parse and make."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=("cutouts", "nuclei", "cells"))
    parser.add_argument("folder", type=Path, nargs="?", default=Path("data"))
    parser.add_argument("--raw", type=Path, default=Path("raw"))
    given = parser.parse_args()
    {"cutouts": cutouts, "nuclei": nuclei, "cells": cells}[given.name](given.raw, given.folder / given.name)


if __name__ == "__main__":
    main()
