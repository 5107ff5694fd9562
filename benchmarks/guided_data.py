"""Images with objects and their masks, for `guided_crops.py`: `guided_data.py cutouts|brain|head [FOLDER] [--raw RAW]`.

cutouts   photo-like cut-outs of animals, foods and plants (Debian package tuxpaint-stamps-default, GPL-2), one on a piece of a texture
          (images of the PyPI package scikit-image), 64 x 64 pixels; a quarter of the objects is in the test set only
brain     places of 96 x 96 mm, 64 x 64 pixels, in axial slices of two heads without their skulls, T1; marked is the cerebellum. One head is
          trained on (Debian package mricron-data, as are the labels of regions), the other tested (PyPI package nilearn, BSD-3)
head      places of 112 x 112 mm, 64 x 64 pixels, in sagittal slices of a head with its skull (mricron-data); marked is the brain. One half
          of the head is trained on, the other tested

RAW holds the packages' files: stamps/ and mricron/ (usr/share/tuxpaint/stamps and usr/share/mricron of Debian's packages), skimage/data/
and nilearn/datasets/data/ of the others.
Writes FOLDER/NAME/{train,validation,test}.csv with columns path, mask, label, group, of which validation is the beginning of train, and the
boxes of other images in FOLDER/NAME/random.csv.
"""

import argparse
import csv
import random
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image
from scipy import ndimage

SIDE, TRAIN, VALIDATION, TEST = 64, 3000, 600, 600
SIZES = (0.35, 0.5)  # of an object's longer side, as a share of the image's
KINDS = ("animals", "food", "plants")
TEXTURES = ("brick.png", "grass.png", "gravel.png")
COVERED = {"brain": (0.03, 0.3), "head": (0.03, 0.4)}  # how much of a place may be marked
CEREBELLUM = range(91, 117)  # of the regions of AAL
FIELD = {"brain": 96, "head": 112}  # the side of a place in mm
MIDDLE = 91  # the sagittal slice between the halves of a head
HALVES = {"train": range(6, 84), "test": range(98, 176)}
DEPTHS = ("medial", "middle", "lateral")  # which third of the places, by slice, one is in
HEIGHTS = ("low", "middle", "high")  # which third of the places, by slice, one is in
# The other head's voxels where the first head has any: both are 1 mm apart, in MNI space.
OTHER_HEAD = (slice(8, 189), slice(9, 226), slice(1, 182))


def cutouts(raw: Path, out: Path) -> None:
    """Composites: an object on a texture."""
    rng = random.Random(0)
    objects = stamps(raw, KINDS, rng)
    textures = [Image.open(raw / "skimage/data" / name).convert("RGB") for name in TEXTURES]
    for name, count in (("train", TRAIN), ("test", TEST)):
        mine = part(objects, name)
        print(name, len(mine), "objects")
        rows = []
        for number in range(count):
            kind, picture = mine[number % len(mine)]
            image, mask = composite(picture, rng.choice(textures), rng)
            rows.append((*write(out, f"{name}{number:04}", image, mask), kind, name))
        table(out / f"{name}.csv", rows)


def stamps(raw: Path, kinds: tuple[str, ...], rng: random.Random) -> list[tuple[str, Image.Image]]:
    """Cut-outs of some kinds, mixed."""
    files = [(kind, file) for kind in kinds for file in sorted((raw / "stamps" / kind).rglob("*.png"))]
    found = [(kind, picture) for kind, file in files if "cartoon" not in str(file) and (picture := stamp(file))]
    rng.shuffle(found)
    return found


def part(objects: list[tuple[str, Image.Image]], name: str) -> list[tuple[str, Image.Image]]:
    """A quarter of the objects for the test set, the others for training."""
    return objects[: len(objects) // 4] if name == "test" else objects[len(objects) // 4 :]


def stamp(file: Path) -> Image.Image | None:
    """A cut-out without its empty margin; None where it is a whole picture or hardly anything."""
    picture = Image.open(file).convert("RGBA")
    alpha = picture.getchannel("A")
    box = alpha.point(lambda value: 255 * (value > 127)).getbbox()
    if box is None:
        return None
    covered = np.asarray(alpha.crop(box)) > 127
    return picture.crop(box) if 0.15 < covered.mean() < 0.95 else None


def composite(marked: Image.Image, texture: Image.Image, rng: random.Random) -> tuple[Image.Image, Image.Image]:
    """An object anywhere on a piece of a texture, and its mask."""
    side = rng.randint(SIDE, min(texture.size))
    left, top = rng.randint(0, texture.width - side), rng.randint(0, texture.height - side)
    piece = (left, top, left + side, top + side)
    image = texture.crop(piece).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    scale = SIDE * rng.uniform(*SIZES) / max(marked.size)
    width, height = (max(6, round(length * scale)) for length in marked.size)
    small = marked.resize((width, height), Image.Resampling.LANCZOS)
    place = rng.randint(0, SIDE - width), rng.randint(0, SIDE - height)
    image.paste(small, place, small)
    mask = Image.new("L", (SIDE, SIDE))
    mask.paste(small.getchannel("A").point(lambda value: int(value > 127)), place)
    return image, mask


def brain(raw: Path, out: Path) -> None:
    """Places in axial slices of two heads that have some of the cerebellum."""
    templates, data = raw / "mricron/templates", raw / "nilearn/datasets/data"
    marked = np.isin(volume(templates / "aal.nii.gz"), CEREBELLUM)
    heads = {
        "train": volume(templates / "ch2bet.nii.gz"),
        "test": volume(data / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz")[OTHER_HEAD],
    }
    levels = [level for level in range(marked.shape[2]) if marked[..., level].mean() > 0.003]
    for name, voxels in heads.items():
        pixels = grey(voxels)
        slices = [(pixels[..., level], marked[..., level], level) for level in levels]
        places("brain", name, slices, HEIGHTS, out)


def head(raw: Path, out: Path) -> None:
    """Places in sagittal slices of a head that have some of the brain."""
    templates = raw / "mricron/templates"
    pixels = grey(volume(templates / "ch2.nii.gz"))
    marked = ndimage.binary_closing(volume(templates / "ch2bet.nii.gz") > 0, iterations=3)
    marked = ndimage.binary_fill_holes(marked)
    for name, levels in HALVES.items():
        places("head", name, [(pixels[level], marked[level], abs(level - MIDDLE)) for level in levels], DEPTHS, out)


def grey(voxels: np.ndarray) -> np.ndarray:
    """Voxels as pixels of 8 bits."""
    return (np.clip(voxels / np.percentile(voxels[voxels > 0], 99.5), 0, 1) * 255).astype(np.uint8)


def places(
    kind: str, name: str, slices: list[tuple[np.ndarray, np.ndarray, int]], labels: tuple[str, ...], out: Path
) -> None:
    """Write a part of a set: places anywhere in slices (pixels, what is marked, a number) that have enough of what is marked. Their label
    is by thirds of the number."""
    rng = random.Random(name)
    found = []
    while len(found) < (TRAIN if name == "train" else TEST):
        image, mask, number = rng.choice(slices)
        image, mask = np.rot90(image), np.rot90(mask)
        place = square(mask.shape, FIELD[kind], rng)
        if COVERED[kind][0] < mask[place].mean() < COVERED[kind][1]:
            found.append((*turned(image[place], mask[place], rng.choice((1, -1))), number))
    thirds = np.quantile([number for *_, number in found], (1 / 3, 2 / 3))
    rows = [
        (*write(out, f"{name}{index:04}", image, mask), labels[int(np.searchsorted(thirds, number))], name)
        for index, (image, mask, number) in enumerate(found)
    ]
    table(out / f"{name}.csv", rows)


def volume(file: Path) -> np.ndarray:
    """The voxels of a NIfTI file."""
    return np.asarray(nibabel.load(file).dataobj)


def square(shape: tuple[int, ...], side: int, rng: random.Random) -> tuple[slice, slice]:
    """A place of an image."""
    top, left = (rng.randint(0, length - side) for length in shape)
    return slice(top, top + side), slice(left, left + side)


def turned(pixels: np.ndarray, mask: np.ndarray, turn: int) -> tuple[Image.Image, Image.Image]:
    """A place (H, W) or (H, W, 3) and its mask, maybe mirrored, of the benchmark's size."""
    picture, objects = (
        Image.fromarray(np.ascontiguousarray(array[:, ::turn])) for array in (pixels, mask.astype(np.uint8))
    )
    return (
        picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR),
        objects.resize((SIDE, SIDE), Image.Resampling.NEAREST),
    )


def write(out: Path, name: str, image: Image.Image, mask: Image.Image) -> tuple[str, str]:
    """Files of an image and its mask, as a manifest names them."""
    for folder, picture in (("images", image), ("masks", mask)):
        (out / folder).mkdir(parents=True, exist_ok=True)
        picture.save(out / folder / f"{name}.png")
    return f"images/{name}.png", f"masks/{name}.png"


def table(file: Path, rows: list[tuple[str, ...]]) -> None:
    """A manifest; for the training set also its beginning, and boxes of the same sizes that have nothing to do with the image: another
    image's."""
    with file.open("w", newline="", encoding="utf-8") as text:
        csv.writer(text).writerows([("path", "mask", "label", "group"), *rows])
    print(file, len(rows))
    if file.stem != "train":
        return
    with (file.parent / "validation.csv").open("w", newline="", encoding="utf-8") as text:
        csv.writer(text).writerows([("path", "mask", "label", "group"), *rows[:VALIDATION]])
    with (file.parent / "random.csv").open("w", newline="", encoding="utf-8") as text:
        writer = csv.writer(text)
        writer.writerow(("image", "left", "top", "width", "height"))
        for number, (path, *_) in enumerate(rows):
            mask = np.asarray(Image.open(file.parent / rows[(number * 7 + len(rows) // 2) % len(rows)][1])) > 0
            for down, across in ndimage.find_objects(ndimage.label(mask)[0]):
                writer.writerow((path, across.start, down.start, across.stop - across.start, down.stop - down.start))


SETS = {"cutouts": cutouts, "brain": brain, "head": head}


def main() -> None:
    """Parse and make."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=tuple(SETS))
    parser.add_argument("folder", type=Path, nargs="?", default=Path("data"))
    parser.add_argument("--raw", type=Path, default=Path("raw"))
    given = parser.parse_args()
    SETS[given.name](given.raw, given.folder / given.name)


if __name__ == "__main__":
    main()
