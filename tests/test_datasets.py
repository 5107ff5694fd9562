import os

import numpy as np
import pytest
import torch
from PIL import Image

from dinomx_core import ConfigError, DataError, api
from dinomx_core.builtin.data_options import Digits, count_digits
from dinomx_core.builtin.digits import DigitsData
from dinomx_core.builtin.image_folder import ImageFolderData
from dinomx_core.builtin.listing import list_images
from dinomx_core.builtin.picture_options import in_folder
from tests.fixtures import in_table, rows


def test_digits_are_counted_as_they_are_and_split_without_overlap():
    sets = {split: DigitsData(Digits(split)) for split in ("train", "test", "all")}
    for split, data in sets.items():
        assert count_digits(Digits(split)).count == len(data)
    assert not {item.id for item in sets["train"]} & {item.id for item in sets["test"]}
    image = sets["all"][0].image
    assert (image.shape, image.dtype, int(image.max())) == ((1, 8, 8), torch.uint8, 239)


def test_class_folders_are_labels(image_folder):
    options = in_table("dataset", {"name": "image-folder", "path": str(image_folder)}).options
    data = ImageFolderData(options)
    assert in_folder(options).classes == ("cats", "dogs")
    assert [data[i].label for i in (0, 5, 6, 11)] == [0, 0, 1, 1]
    assert data[7].id == "dogs/1.png" and data[7].image.shape == (3, 30, 40)


def test_missing_empty_and_file_paths_are_refused(tmp_path):
    with pytest.raises(DataError, match="there is no folder"):
        list_images(str(tmp_path / "none"))
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="is a file; name the folder"):
        list_images(str(tmp_path / "a.txt"))
    with pytest.raises(DataError, match="no images in .* 1 files of other kinds are there"):
        list_images(str(tmp_path))


# Image folders as users have them --------------------------------------------------------------------------------------


def saved(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def test_formats_depths_and_colours_mix_by_the_declared_rule(tmp_path):
    rng = np.random.default_rng(0)
    grey8, grey16 = rng.integers(0, 256, (9, 7), dtype=np.uint8), rng.integers(0, 65536, (9, 7)).astype(np.uint16)
    colour = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
    for name in ("a.png", "b.tif", "c.webp", "d.jpg", "e.bmp"):
        saved(tmp_path / name, colour, **({"lossless": True} if name == "c.webp" else {}))
    for name in ("f.png", "g.tiff"):
        saved(tmp_path / name, grey16)
    saved(tmp_path / "h.png", grey8)
    saved(tmp_path / "i.png", np.dstack([colour, grey8]))  # with an alpha channel
    for channels in (1, 3):
        table = {"name": "image-folder", "path": str(tmp_path), "channels": channels}
        data = ImageFolderData(in_table("dataset", table).options)
        items = {data[i].id: data[i].image for i in range(len(data))}
        assert {image.shape for image in items.values()} == {(channels, 9, 7)}
        assert {name for name, image in items.items() if image.dtype == torch.uint16} == {"f.png", "g.tiff"}
        assert np.array_equal(items["f.png"][0].numpy(), grey16) and np.array_equal(items["h.png"][0].numpy(), grey8)
        if channels == 3:
            for name in ("a.png", "b.tif", "c.webp", "e.bmp", "i.png"):
                assert np.array_equal(items[name].permute(1, 2, 0).numpy(), colour), name


def test_nested_folders_links_and_hidden_files(tmp_path):
    grey = np.zeros((4, 4), np.uint8)
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    for name in ("cats/deep/er/1.png", "cats/2.PNG", "dogs/3.png", ".cache/4.png", "dogs/.5.png"):
        if "PNG" in name:
            saved(root / name, grey, format="PNG")
        else:
            saved(root / name, grey)
    saved(elsewhere / "6.png", grey)
    (root / "cows").symlink_to(elsewhere)
    (root / "dogs" / "up").symlink_to(root)
    (root / "dogs" / "linked.png").symlink_to(elsewhere / "6.png")
    (root / "dogs" / "notes.txt").write_text("")
    listing = list_images(str(root))
    assert listing.files == ("cats/2.PNG", "cats/deep/er/1.png", "cows/6.png", "dogs/3.png", "dogs/linked.png")
    assert listing.classes == ("cats", "cows", "dogs") and listing.labels == (0, 0, 1, 2, 2)
    assert "1 files of other kinds are left out" in listing.notes
    (root / "pigs").symlink_to(elsewhere)  # two names for one folder are two classes
    assert list_images(str(root)).classes == ("cats", "cows", "dogs", "pigs")
    saved(root / "stray.png", grey)
    stray = list_images(str(root))
    assert (
        stray.classes == ()
        and "1 images lie beside the sub-folders, so these are not classes and nothing has a label" in stray.notes
    )
    flat = list_images(str(elsewhere))
    assert flat.classes == () and flat.labels == (-1,)


def test_empty_and_all_broken_folders_are_refused_by_the_plan(toy, tmp_path):
    (tmp_path / "empty").mkdir()
    for number in range(20):
        (tmp_path / f"broken{number}.png").write_bytes(b"no image")
    for name, message in (
        ("empty", f'data.path: no images in "{tmp_path}/empty" (.bmp, .jpeg, .jpg, .npy, .png, .tif, .tiff, .webp)'),
        (
            ".",
            f"data.path: none of the 8 images looked at (of 20) can be read; the first: {tmp_path}/broken0.png: cannot be read as an image: is of",
        ),
    ):
        with pytest.raises(ConfigError) as caught:
            api.plan(toy(data={"name": "image-folder", "path": str(tmp_path / name), "split": None}))
        assert message in str(caught.value)


def broken_run(toy, image_folder, workers, limit):
    for name in ("cats/3.png", "dogs/0.png"):
        (image_folder / name).write_bytes(b"\x89PNG broken")
    return toy(
        run={"name": f"w{workers}", "steps": 6},
        data={"name": "image-folder", "path": str(image_folder), "split": None},
        augmentation={"mean": [0.5], "std": [0.3]},
        loader={"workers": workers, "max_unreadable": limit},
    )


@pytest.mark.slow
def test_unreadable_images_are_counted_named_and_stood_in_for_whatever_the_workers(toy, image_folder):
    runs = [api.run(broken_run(toy, image_folder, workers, 0.2)).folder for workers in (0, 2)]
    losses = [[row["loss"] for row in rows(run / "metrics.jsonl")] for run in runs]
    assert losses[0] == losses[1]
    for run in runs:
        named = sorted((run / "unreadable.txt").read_text().splitlines())
        assert [line.partition(": ")[0] for line in named] == [
            str(image_folder / n) for n in ("cats/3.png", "dogs/0.png")
        ]


def test_a_run_stops_when_too_many_images_are_unreadable(toy, image_folder):
    with pytest.raises(
        DataError, match=r"2 of 12 images cannot be read, more than loader.max_unreadable = 0.1 allows: .*cats/3.png"
    ):
        api.run(broken_run(toy, image_folder, 1, 0.1))


@pytest.mark.slow
def test_a_hundred_thousand_files_are_listed(tmp_path):
    """How long it takes is in benchmarks/RESULTS.md; here, that all are found."""
    image = np.zeros((1, 1), np.uint8)
    for folder in range(100):
        saved(tmp_path / str(folder) / "0.png", image)
        for number in range(1, 1000):
            os.link(tmp_path / str(folder) / "0.png", tmp_path / str(folder) / f"{number}.png")
    listing = list_images(str(tmp_path))
    assert len(listing.files) == 100_000 and len(listing.classes) == 100
