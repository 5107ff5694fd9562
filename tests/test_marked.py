"""What lies where in images: masks of a manifest, masks and boxes beside any data set."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dinomx_core import ConfigError, DataError, Preprocessing, api
from dinomx_core.builtin.marked import names_of
from dinomx_core.training.construct import construct
from dinomx_core.training.evaluation import preprocess
from dinomx_core.training.flow import Item
from dinomx_core.training.regions import Regions, regions_of, seen_mask
from tests.fixtures import in_table

SIZE = (20, 30)


def table(file, header, rows):
    with file.open("w", newline="") as text:
        csv.writer(text).writerows([header, *rows])
    return file


@pytest.fixture
def marked(tmp_path):
    """Images a/0.png .. a/2.png, masks of the first two, and their boxes."""
    rng = np.random.default_rng(0)
    for number in range(3):
        file = tmp_path / "images/a" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(file)
        if number < 2:
            mask = np.zeros(SIZE, np.uint8)
            mask[2 : 5 + number, 4:9] = number + 3
            (tmp_path / "masks/a").mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(tmp_path / "masks/a" / f"{number}.png")
    table(
        tmp_path / "boxes.csv",
        ["image", "left", "top", "width", "height", "class"],
        [("a/0.png", 4, 2, 5, 3, "cell"), ("a/0", 10, 10, 2, 4, "bud"), ("1", 0, 0, 30, 20, "bud")],
    )
    return tmp_path


def opened(folder, **options):
    images = {"name": "image-folder", "path": str(folder / "images")}
    return construct(in_table("dataset", {"name": "marked", "images": images, **options}))


def test_masks_go_by_name(marked):
    data = opened(marked, masks=str(marked / "masks/{name}.png"))
    assert [None if regions_of(data[n]) is None else regions_of(data[n]).mask.unique().tolist() for n in range(3)] == [
        [0, 3],
        [0, 4],
        None,
    ]
    assert int((regions_of(data[1]).mask == 4).sum()) == 20
    flat = opened(marked, masks=str(marked / "masks/a/{stem}.png"))
    assert torch.equal(regions_of(flat[1]).mask, regions_of(data[1]).mask)


def test_boxes_go_by_id_name_or_stem_and_classes_by_name(marked):
    data = opened(marked, boxes=str(marked / "boxes.csv"))
    first = regions_of(data[0])
    assert first.boxes.tolist() == [[2, 4, 3, 5]]  # an id is looked for first
    assert (first.names, first.classes.tolist()) == (("bud", "cell"), [2])
    assert regions_of(data[1]).painted(*SIZE).tolist() == torch.ones(SIZE, dtype=torch.int64).tolist()
    assert regions_of(data[2]) is None


def test_ids_of_frames_and_regions():
    assert names_of("b/vol.nii.gz#12@1,2,3,4") == ("b/vol", "vol")
    assert names_of("x.tar/0001.jpg") == ("x.tar/0001", "0001")
    assert names_of("17") == ("17", "17")


@pytest.mark.parametrize(
    ("inner", "ids"),
    [
        ({"name": "digits", "split": "train"}, True),
        ({"name": "mix", "sources": {"d": {"name": "digits", "split": "train"}}}, True),
    ],
)
def test_any_data_set_can_have_boxes(tmp_path, inner, ids):
    first = construct(in_table("dataset", inner))[0]
    file = table(tmp_path / "b.csv", ["image", "left", "top", "width", "height"], [(first.id or "0", 1, 2, 3, 4)])
    data = construct(in_table("dataset", {"name": "marked", "images": inner, "boxes": str(file)}))
    assert regions_of(data[0]).boxes.tolist() == [[2, 1, 4, 3]]
    assert torch.equal(data[0].image, first.image)
    assert data[0].label == first.label


def test_masks_of_a_manifest_may_be_missing(marked):
    rows = [("images/a/0.png", "masks/a/0.png"), ("images/a/2.png", "")]
    file = table(marked / "m.csv", ["path", "mask"], rows)
    chosen = in_table("dataset", {"name": "manifest", "path": str(file), "mask": "mask"})
    data = construct(chosen)
    assert [regions_of(item) is None for item in (data[0], data[1])] == [False, True]
    assert chosen.component.inspect(chosen.options).regions


def test_a_mask_is_seen_as_its_image_is():
    """The mask of a bright square lies on it after resizing and cutting, for images that are not square."""
    image, mask = torch.zeros(1, 60, 100, dtype=torch.uint8), torch.zeros(60, 100, dtype=torch.int64)
    image[:, 20:40, 30:60], mask[20:40, 30:60] = 255, 1
    for how in (Preprocessing(36, (32, 32), (0.0,), (1.0,)), Preprocessing(32, (32, 48), (0.0,), (1.0,))):
        seen = preprocess(Item(image), how)[0] > 0.5
        assert ((seen_mask(mask, how) == 1) == seen).float().mean() > 0.98
        assert int(seen.sum()) > 50


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "data.masks: names neither masks nor boxes"),
        (
            {"masks": "masks/all.png"},
            'data.masks: "masks/all.png" does not say which mask is whose; use {name} or {stem}',
        ),
        ({"masks": "nowhere/{name}.png"}, 'data.masks: no file is like "nowhere/{name}.png"'),
        ({"boxes": "none.csv"}, "data.boxes: there is no file"),
        (
            {"images": {"name": "image-folder", "path": "/nowhere"}, "boxes": "boxes.csv"},
            "data.images.path: there is no folder",
        ),
    ],
)
def test_what_is_not_there_is_told_by_the_plan(marked, monkeypatch, toy, change, message):
    monkeypatch.chdir(marked)
    data = {"name": "marked", "images": {"name": "image-folder", "path": "images"}, "split": None, **change}
    with pytest.raises(ConfigError) as caught:
        api.plan(toy(data=data, augmentation={"mean": [0.5], "std": [0.5]}))
    assert message in str(caught.value)


def test_masks_that_do_not_fit_are_named(marked):
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(marked / "masks/a/0.png")
    data = opened(marked, masks=str(marked / "masks/{name}.png"))
    with pytest.raises(
        DataError, match=r"^a/0.png: its mask has 9 x 9 pixels, the image 20 x 30; give masks of the image's size$"
    ):
        regions_of(data[0])
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 255, (*SIZE, 3), dtype=np.uint8)).save(marked / "masks/a/0.png")
    with pytest.raises(
        DataError, match="0.png: is no mask: its 3 channels differ; a mask has one whole number a pixel"
    ):
        regions_of(data[0])
    (marked / "masks/a/0.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match="0.png: cannot be read as an image: is of no format"):
        regions_of(data[0])


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [("width", "1e30", "1e+30"), ("left", "-3000000000", "-3e+09"), ("top", "1e10", "1e+10")],
)
def test_numbers_that_no_image_has_pixels_for_are_named(marked, column, value, told):
    names = ["image", "left", "top", "width", "height"]
    row = [value if name == column else 1 for name in names[1:]]
    file = table(marked / "far.csv", names, [("a/0.png", 4, 2, 5, 3), ("a/1.png", *row)])
    for chosen, key in (
        (
            {"name": "marked", "images": {"name": "image-folder", "path": str(marked / "images")}, "boxes": str(file)},
            "boxes",
        ),
        ({"name": "manifest", "path": str(file), "columns": ["image"], "box": names[1:]}, "box"),
    ):
        chosen = in_table("dataset", chosen)
        (marked / "a").mkdir(exist_ok=True)
        for number in range(2):
            (marked / "a" / f"{number}.png").write_bytes((marked / "images/a" / f"{number}.png").read_bytes())
        with pytest.raises(DataError) as caught:
            chosen.component.inspect(chosen.options)
        assert str(caught.value) == f'{file}: column "{column}" holds {told} in line 3, more than pixels count'
        assert caught.value.key == key


def test_an_indexed_mask_is_read_as_its_numbers_and_an_image_as_its_colours(marked):
    numbers = np.zeros(SIZE, np.uint8)
    numbers[2:5, 4:9], numbers[6, 7] = 1, 255
    palette = [0, 0, 0, 128, 0, 0, *([0] * 759), 224, 224, 192]  # as Pascal VOC's
    for name, colours in (("0", palette), ("1", [0, 0, 0, 128, 128, 128, *([0] * 759), 255, 255, 255])):
        indexed = Image.fromarray(numbers).convert("P")
        indexed.putdata(numbers.flatten().tolist())
        indexed.putpalette(colours)
        assert indexed.mode == "P"
        indexed.save(marked / "masks/a" / f"{name}.png")
    Image.fromarray(numbers > 0).save(marked / "masks/a/2.png")  # one bit a pixel
    file = table(marked / "m.csv", ["path", "mask"], [(f"images/a/{n}.png", f"masks/a/{n}.png") for n in range(3)])
    of_manifest = construct(in_table("dataset", {"name": "manifest", "path": str(file), "mask": "mask"}))
    for data in (opened(marked, masks=str(marked / "masks/{name}.png")), of_manifest):
        assert [regions_of(data[n]).mask.tolist() for n in range(2)] == [numbers.tolist()] * 2
        assert regions_of(data[2]).mask.tolist() == (numbers > 0).astype(int).tolist()
    reader = construct(in_table("reader", {"name": "image"}))
    with (marked / "masks/a/0.png").open("rb") as stream:
        part = reader.read_mask(stream, region=(4, 3, 3, 5)).pixels
        assert part.tolist() == [numbers[4:7, 3:8].tolist()]
        assert reader.read(stream).pixels[:, 2, 4].tolist() == [128, 0, 0]
    images = construct(in_table("dataset", {"name": "image-folder", "path": str(marked / "masks")}))
    assert images[0].image[:, 2, 4].tolist() == [128, 0, 0] and images[2].image[:, 2, 4].tolist() == [255] * 3


@pytest.mark.parametrize("mixed", [False, True])
def test_marks_of_no_image_are_refused(marked, mixed):
    file = table(marked / "b.csv", ["image", "left", "top", "width", "height"], [("cats/0.png", 1, 2, 3, 4)])
    boxes, masks = str(file), str(marked / "masks/{stem}.png")
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(marked / "masks/elsewhere.png")
    images = {"name": "image-folder", "path": str(marked / "images")}
    images = {"name": "mix", "sources": {"one": images}} if mixed else images
    remedy = "let these name images by their ids, with or without ending and folders"
    mask = f'its mask would be "{marked}/masks/0.png"'
    for options, message in (
        ({"boxes": boxes}, f'has boxes: the first is called "a/0.png", and {file} names "cats/0.png"'),
        ({"masks": masks}, f'has masks: the first is called "a/0.png", and {mask}'),
        (
            {"masks": masks, "boxes": boxes},
            f'has masks or boxes: the first is called "a/0.png", and {mask} and {file} names "cats/0.png"',
        ),
    ):
        with pytest.raises(DataError) as caught:
            construct(in_table("dataset", {"name": "marked", "images": images, **options}))
        assert str(caught.value) == f"none of the 3 images {message}; {remedy}"
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(marked / "masks/2.png")
    assert regions_of(opened(marked, masks=masks, boxes=boxes)[2]).mask is not None


def test_what_is_wrong_with_images_inside_is_told_once(marked, toy):
    images = {"name": "image-folder", "path": "/nowhere"}
    sets = {
        name: {"name": "marked", "images": images, "masks": str(marked / "masks/{name}.png")}
        for name in ("bank", "query")
    }
    sets["query"]["images"] = {"name": "digits"}
    with pytest.raises(ConfigError) as caught:
        api.plan(toy(evaluate={"dense-knn": sets}))
    assert (
        str(caught.value)
        == f'config: evaluate.dense-knn.bank.images.path: there is no folder "/nowhere" (looked in {Path.cwd()})'
    )
    sets["bank"]["images"] = {"name": "image-folder", "path": str(marked / "images")}
    with pytest.raises(ConfigError) as caught:
        api.plan(toy(evaluate={"dense-knn": sets}))
    assert str(caught.value) == "config: evaluate.dense-knn.bank: has 3 channels, the training data 1"


def test_boxes_outside_are_named():
    box = Regions(boxes=torch.tensor([[0, 25, 5, 6]]), classes=torch.tensor([1]))
    with pytest.raises(
        DataError,
        match="^x: the box with left 25, top 0, width 6, height 5 does not lie in the image of 20 x 30 pixels",
    ):
        regions_of(Item(torch.zeros(1, *SIZE), id="x", regions=lambda: box))
