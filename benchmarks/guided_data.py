"""Images with objects and their masks, for `guided_crops.py`: `python benchmarks/guided_data.py cutouts|brain|cortex [FOLDER] [--raw RAW]`.

cutouts   photo-like cut-outs (Debian package tuxpaint-stamps-default, GPL-2) on textures (images of the PyPI package scikit-image), 64 x
          64 pixels: a food or a plant, which is marked, beside a building, a vehicle or a tool, which is not; a quarter of the objects is
          in the test set only
brain     places of 96 x 96 mm, 64 x 64 pixels, in axial slices of two heads without their skulls, T1; marked is the cerebellum. One head is
          trained on (Debian package mricron-data, as are the labels of regions), the other tested (PyPI package nilearn, BSD-3)
cortex    places of 64 x 64 pixels in one image of 1112 x 402 pixels of a slice of brain, three markers of neurons (PyPI package
          ndev-sampledata, BSD-3); marked is where the first marker (CTIP2) is brightest; the test set is the image's right third

RAW holds the packages' files: stamps/ and mricron/ (usr/share/tuxpaint/stamps and usr/share/mricron of Debian's packages), skimage/data/,
nilearn/datasets/data/ and ndev_sampledata/samples/ of the others.
Writes FOLDER/NAME/{train,test}.csv with columns path, mask, label, group, and the boxes of other images in FOLDER/NAME/random.csv.
"""

import argparse
import csv
import random
from pathlib import Path

import nibabel
import numpy as np
import tifffile
from PIL import Image
from scipy import ndimage

SIDE, TRAIN, TEST = 64, 3000, 600
SIZES = (0.35, 0.5)  # of an object's longer side, as a share of the image's
KINDS, OTHERS = ("food", "plants"), ("town", "vehicles", "household")  # marked, and beside it
TEXTURES = ("brick.png", "grass.png", "gravel.png")
GREY, CONTRAST = (110, 110, 110), 0.8  # what textures are blended with, and how much is left of them
COVERED = (0.03, 0.3)  # how much of a place may be marked
CEREBELLUM = range(91, 117)  # of the regions of AAL
OTHER_HEAD = (
    slice(8, 189),
    slice(9, 226),
    slice(1, 182),
)  # its voxels where the first head has any: both are 1 mm apart, in MNI space
SPLIT = 270  # first column of the cortex' test set


def cutouts(raw: Path, out: Path) -> None:
    """Composites: a thing of nature, which is marked, and one made by people, which is not."""
    rng = random.Random(0)
    found = {kinds: stamps(raw, kinds, rng) for kinds in (KINDS, OTHERS)}
    textures = [Image.open(raw / "skimage/data" / name).convert("RGB") for name in TEXTURES]
    for name, count in (("train", TRAIN), ("test", TEST)):
        natural, made = (part(found[kinds], name) for kinds in (KINDS, OTHERS))
        print(name, len(natural), "and", len(made), "objects")
        rows = []
        for number in range(count):
            kind, picture = natural[number % len(natural)]
            image, mask = composite(picture, rng.choice(made)[1], rng.choice(textures), rng)
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


def composite(
    marked: Image.Image, other: Image.Image, texture: Image.Image, rng: random.Random
) -> tuple[Image.Image, Image.Image]:
    """Two objects side by side, in any order, on a pale piece of a texture, and the mask of the one."""
    side = rng.randint(SIDE, min(texture.size))
    left, top = rng.randint(0, texture.width - side), rng.randint(0, texture.height - side)
    piece = texture.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    image, mask = Image.blend(Image.new("RGB", (SIDE, SIDE), GREY), piece, CONTRAST), Image.new("L", (SIDE, SIDE))
    first = rng.randrange(2)
    for number, picture in enumerate((marked, other)):
        scale = SIDE * rng.uniform(*SIZES) / max(picture.size)
        size = tuple(min(SIDE // 2, max(6, round(length * scale))) for length in picture.size)
        small = picture.resize(size, Image.Resampling.LANCZOS)
        across = (number + first) % 2 * (SIDE // 2)
        place = across + rng.randint(0, SIDE // 2 - small.width), rng.randint(0, SIDE - small.height)
        image.paste(small, place, small)
        if picture is marked:
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
        grey = (np.clip(head / np.percentile(head[head > 0], 99.5), 0, 1) * 255).astype(np.uint8)
        slices = [(np.rot90(grey[..., level]), np.rot90(marked[..., level]), level) for level in levels]
        places(out, name, slices, 96, ("low", "middle", "high"))


def volume(file: Path) -> np.ndarray:
    """The voxels of a NIfTI file."""
    return np.asarray(nibabel.load(file).dataobj)


def cortex(raw: Path, out: Path) -> None:
    """Places in the one image of three markers of neurons; the nuclei that have most of the first one are marked."""
    planes = tifffile.imread(raw / "ndev_sampledata/samples/neocortex-3Ch.tiff").astype(float)
    image = np.stack([grey(plane) for plane in planes], -1)
    smooth = ndimage.gaussian_filter(planes[0], 1.5)
    marked = smooth > np.percentile(smooth, 90)
    for name, columns in (("train", slice(None, SPLIT)), ("test", slice(SPLIT, None))):
        places(out, name, [(image[:, columns], marked[:, columns], None)], SIDE, ("least", "middle", "most"))


def grey(pixels: np.ndarray) -> np.ndarray:
    """uint8 between the 0.5th and the 99.5th percentile."""
    low, high = np.percentile(pixels, (0.5, 99.5))
    return (np.clip((pixels - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def places(
    out: Path,
    name: str,
    slices: list[tuple[np.ndarray, np.ndarray, int | None]],
    side: int,
    labels: tuple[str, str, str],
) -> None:
    """Squares, maybe mirrored, of images (H, W) or (H, W, 3) of which some share is marked (H, W). The label is a third: of the images'
    numbers, or where they have none of how much is marked."""
    rng = random.Random(name)
    found = []
    while len(found) < (TRAIN if name == "train" else TEST):
        image, marked, number = rng.choice(slices)
        top, left = (rng.randint(0, length - side) for length in marked.shape)
        pixels, mask = (whole[top : top + side, left : left + side] for whole in (image, marked))
        if COVERED[0] < mask.mean() < COVERED[1]:
            turn = rng.choice((1, -1))
            found.append((pixels[:, ::turn], mask[:, ::turn], mask.mean() if number is None else number))
    edges = np.quantile([key for *_, key in found], (1 / 3, 2 / 3))
    rows = []
    for number, (pixels, mask, key) in enumerate(found):
        picture = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")
        objects = Image.fromarray(np.ascontiguousarray(mask).astype(np.uint8))
        files = write(
            out,
            f"{name}{number:04}",
            picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR),
            objects.resize((SIDE, SIDE), Image.Resampling.NEAREST),
        )
        rows.append((*files, labels[int(np.searchsorted(edges, key))], name))
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
    parser.add_argument("name", choices=("cutouts", "brain", "cortex"))
    parser.add_argument("folder", type=Path, nargs="?", default=Path("data"))
    parser.add_argument("--raw", type=Path, default=Path("raw"))
    given = parser.parse_args()
    {"cutouts": cutouts, "brain": brain, "cortex": cortex}[given.name](given.raw, given.folder / given.name)


if __name__ == "__main__":
    main()
