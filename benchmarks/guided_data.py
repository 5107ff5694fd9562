"""Images with objects and their masks, for `guided_crops.py`: `guided_data.py cutouts|brain [FOLDER] [--raw RAW]`.

cutouts   photo-like cut-outs of animals, foods and plants (Debian package tuxpaint-stamps-default, GPL-2), one on a piece of a texture
          (images of the PyPI package scikit-image), 64 x 64 pixels; a quarter of the objects is in the test set only
brain     places of 96 x 96 mm, 64 x 64 pixels, in axial slices of two heads without their skulls, T1; marked is the cerebellum. One head is
          trained on (Debian package mricron-data, as are the labels of regions), the other tested (PyPI package nilearn, BSD-3)

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
COVERED = (0.03, 0.3)  # how much of a place may be marked
CEREBELLUM = range(91, 117)  # of the regions of AAL
FIELD = 96  # the side of a place in a head in mm
HEIGHTS = ("low", "middle", "high")  # which third of the slices a place is from
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
    for name, head in heads.items():
        pixels = (np.clip(head / np.percentile(head[head > 0], 99.5), 0, 1) * 255).astype(np.uint8)
        rng = random.Random(name)
        found = []
        while len(found) < (TRAIN if name == "train" else TEST):
            level = rng.choice(levels)
            image, mask = np.rot90(pixels[..., level]), np.rot90(marked[..., level])
            place = square(mask.shape, FIELD, rng)
            if COVERED[0] < mask[place].mean() < COVERED[1]:
                found.append((*turned(image[place], mask[place], rng.choice((1, -1))), level))
        thirds = np.quantile([level for *_, level in found], (1 / 3, 2 / 3))
        rows = [
            (*write(out, f"{name}{number:04}", image, mask), HEIGHTS[int(np.searchsorted(thirds, level))], name)
            for number, (image, mask, level) in enumerate(found)
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


def main() -> None:
    """Parse and make."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=("cutouts", "brain"))
    parser.add_argument("folder", type=Path, nargs="?", default=Path("data"))
    parser.add_argument("--raw", type=Path, default=Path("raw"))
    given = parser.parse_args()
    {"cutouts": cutouts, "brain": brain}[given.name](given.raw, given.folder / given.name)


if __name__ == "__main__":
    main()
