"""Data sets of files: manifests, files stacked as channels, volumes as slices, splits by group."""

import numpy as np
import pytest
from PIL import Image

from dinomx_core import ConfigError, DataError, api
from dinomx_core.training.construct import construct
from dinomx_core.training.regions import regions_of
from tests import volumes
from tests.fixtures import in_table

GREY = (20, 24)


def opened(**table):
    """A data set as a config's table picks it."""
    return construct(in_table("dataset", table, volumes))


def info(**table):
    chosen = in_table("dataset", table, volumes)
    return chosen.component.inspect(chosen.options)


def write_grey(file, value, shape=GREY):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, value, np.uint8)).save(file)


def planned(toy, **table):
    return api.plan(toy(run={"batch_size": 2, "steps": 1}, data={"split": None, **table}), plugins=[volumes])


# Files stacked as channels ---------------------------------------------------------------------------------------------


def test_files_that_differ_in_a_pattern_are_channels_of_one_image(tmp_path):
    for patient in range(3):
        for number, name in enumerate(("t1", "t1ce", "flair")):
            write_grey(tmp_path / f"p{patient}" / f"scan_{name}.png", 10 * patient + number)
    data = opened(
        name="image-folder", path=str(tmp_path), stack=["_t1", "_t1ce", "_flair"], labels="none", group="p[0-9]"
    )
    found = info(name="image-folder", path=str(tmp_path), stack=["_t1", "_t1ce", "_flair"])
    assert (found.count, found.channels, found.names) == (3, 3, ("t1", "t1ce", "flair"))
    for patient in range(3):
        item = data[patient]
        assert item.image[:, 0, 0].tolist() == [10 * patient, 10 * patient + 1, 10 * patient + 2]
        assert (item.group, item.label, item.id) == (f"p{patient}", None, f"p{patient}/scan_t1.png")


def test_a_missing_channel_file_is_named(toy, tmp_path):
    for name in ("1_t1", "1_t2", "2_t1"):
        write_grey(tmp_path / f"{name}.png", 1)
    with pytest.raises(ConfigError) as caught:
        planned(toy, name="image-folder", path=str(tmp_path), stack=["_t1", "_t2"])
    assert str(caught.value) == (
        'config: data.stack: 1 of 2 images lack a channel\'s file: 2_t1.png has no "_t2"; add these files, or take the others away'
    )
    write_grey(tmp_path / "mask.png", 1)
    with pytest.raises(DataError, match=r'mask.png has none of "_t1", "_t2" in its name; each file needs one'):
        opened(name="image-folder", path=str(tmp_path), stack=["_t1", "_t2"])


def test_channels_of_other_sizes_are_named(tmp_path):
    write_grey(tmp_path / "1_t1.png", 1)
    write_grey(tmp_path / "1_t2.png", 1, (20, 25))
    with pytest.raises(
        DataError,
        match=r"1_t2.png: is of the size \(20, 25\), but 1_t1.png, a channel of the same image, of \(20, 24\)",
    ):
        opened(name="image-folder", path=str(tmp_path), stack=["_t1", "_t2"])


def test_images_of_different_channels_do_not_mix_silently(toy, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((8, 8, 4), np.uint8))
    write_grey(tmp_path / "b.png", 1)
    with pytest.raises(ConfigError) as caught:
        planned(toy, name="image-folder", path=str(tmp_path))
    assert str(caught.value) == (
        "config: data.path: images of different numbers of channels: 1 (b.png), 4 (a.npy); keep them apart (see the data set `mix`)"
    )
    with pytest.raises(ConfigError, match=r"data.channels: 3, but a.npy has 4; set 0, or 4"):
        planned(toy, name="image-folder", path=str(tmp_path), channels=3)


# Volumes ---------------------------------------------------------------------------------------------------------------


def test_slices_are_images_and_neighbours_become_channels(tmp_path):
    volumes.write(tmp_path / "a.vol", [0, 1, 2, 3])
    volumes.write(tmp_path / "b.vol", [10, 11])
    plain = opened(name="image-folder", path=str(tmp_path), reader={"name": "volume"}, channels=1)
    assert [int(plain[i].image[0, 0, 0]) for i in range(len(plain))] == [0, 1, 2, 3, 10, 11]
    assert [plain[i].id for i in (0, 3, 5)] == ["a.vol#0", "a.vol#3", "b.vol#1"]
    three = opened(name="image-folder", path=str(tmp_path), reader={"name": "volume"}, neighbours=1)
    assert [three[i].image[:, 0, 0].tolist() for i in (0, 1, 3, 4)] == [[0, 0, 1], [0, 1, 2], [2, 3, 3], [10, 10, 11]]


def test_empty_slices_are_no_images_but_still_neighbours(tmp_path):
    volumes.write(tmp_path / "a.vol", [0, 5, 0, 7])
    data = opened(name="image-folder", path=str(tmp_path), reader={"name": "volume", "skip": True}, neighbours=1)
    assert [data[i].image[:, 0, 0].tolist() for i in range(len(data))] == [[0, 5, 0], [0, 7, 7]]


def test_volumes_of_several_channels_are_sliced_together(tmp_path):
    for name, values in (("1_t1", [1, 0, 3]), ("1_t2", [4, 5, 6]), ("2_t1", [7]), ("2_t2", [8])):
        volumes.write(tmp_path / f"{name}.vol", values)
    data = opened(
        name="image-folder", path=str(tmp_path), stack=["_t1", "_t2"], reader={"name": "volume", "skip": True}
    )
    assert [data[i].image[:, 0, 0].tolist() for i in range(len(data))] == [[1, 4], [3, 6], [7, 8]]
    volumes.write(tmp_path / "2_t2.vol", [8, 9])
    with pytest.raises(DataError, match="2_t2.vol: has 2 planes, another channel of the same image 1"):
        opened(name="image-folder", path=str(tmp_path), stack=["_t1", "_t2"], reader={"name": "volume"})


def test_files_that_a_reader_cannot_use_are_counted_named_and_limited(toy, tmp_path):
    for name in range(4):
        volumes.write(tmp_path / f"{name}.vol", [name, 1, 1])
    (tmp_path / "broken.vol").write_bytes(b"x")
    table = {"name": "image-folder", "path": str(tmp_path), "reader": {"name": "volume"}, "channels": 1}
    plan = api.plan(
        toy(run={"batch_size": 2}, data={"split": None, **table}, loader={"max_unreadable": 0.1}), plugins=[volumes]
    )
    assert plan.data.count == 12
    assert "data: 1 file left out: broken.vol: is no volume" in plan.warnings
    with pytest.raises(ConfigError) as caught:
        planned(toy, **table)
    assert str(caught.value) == (
        "config: data: 1 file cannot be read, beside 12 images, more than loader.max_unreadable = 0.01 allows: "
        "broken.vol: is no volume"
    )


# Manifests -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cells(tmp_path):
    """Two plates of wells with two channel files each, and a manifest of them; the masks have the wells' numbers."""
    lines = ["dna,er,compound,plate,mask"]
    for number in range(8):
        for offset, channel in ((0, "dna"), (100, "er"), (200, "mask")):
            write_grey(tmp_path / channel / f"{number}.png", number + offset)
        lines.append(f"dna/{number}.png,er/{number}.png,{'ab'[number % 2]},plate{number // 4},mask/{number}.png")
    (tmp_path / "cells.csv").write_text("\n".join(lines))
    return tmp_path / "cells.csv"


def test_a_manifest_has_a_column_a_channel_labels_groups_and_masks(cells):
    table = {
        "name": "manifest",
        "path": str(cells),
        "columns": ["dna", "er"],
        "label": "compound",
        "group": "plate",
        "mask": "mask",
    }
    found, data = info(**table), opened(**table)
    assert (found.count, found.channels, found.classes, found.names) == (8, 2, ("a", "b"), ("dna", "er"))
    item = data[5]
    assert (item.image[:, 0, 0].tolist(), item.label, item.group, item.id) == ([5, 105], 1, "plate1", "dna/5.png")
    mask = regions_of(data[5]).mask
    assert mask.shape == GREY and int(mask.max()) == 205
    assert regions_of(opened(name="manifest", path=str(cells), columns=["dna"])[0]) is None


def test_boxes_and_centres_are_cut_out_and_kept_inside(tmp_path):
    image = np.arange(20 * 24, dtype=np.uint16).reshape(20, 24)
    Image.fromarray(image).save(tmp_path / "a.png")
    (tmp_path / "boxes.csv").write_text("path,x,y,w,h,cx,cy\na.png,2,3,5,4,0,0\na.png,19,16,5,4,23,19\n")
    boxes = opened(name="manifest", path=str(tmp_path / "boxes.csv"), box=["x", "y", "w", "h"], channels=1)
    np.testing.assert_array_equal(boxes[0].image[0].numpy(), image[3:7, 2:7])
    np.testing.assert_array_equal(boxes[1].image[0].numpy(), image[16:20, 19:24])
    assert boxes[1].id == "a.png@16,19,4,5"
    centres = opened(name="manifest", path=str(tmp_path / "boxes.csv"), centre=["cx", "cy"], side=6, channels=1)
    np.testing.assert_array_equal(centres[0].image[0].numpy(), image[:6, :6])
    np.testing.assert_array_equal(centres[1].image[0].numpy(), image[14:, 18:])


@pytest.mark.parametrize(("table", "message"), [
    ({"label": "state"}, 'data.label: {file}: has no column "state"; its columns are "er", "compound", "plate", "mask"'),
    ({"columns": ["dna", "rna"]}, 'data.columns: {file}: has no column "rna"; its columns are "er", "compound", "plate", "mask"'),
    ({"columns": ["rna"]}, 'data.columns: {file}: has no column "rna" of the images\' paths'),
    ({"columns": []}, "data.columns: names no column of paths"),
    ({"box": ["plate"]}, 'data.box: names the columns of left, top, width and height, got "plate"'),
    ({"centre": ["plate", "plate"], "side": 4}, 'data.centre: {file}: column "plate" holds no number in lines 2, 3, 4, 5, 6 and 3 more'),
    ({"centre": ["plate", "plate"]}, "data.centre: names the columns of x and y, and needs `side`"),
    ({"path": "none.csv"}, 'data.path: there is no file "'),
])  # fmt: skip
def test_what_a_manifest_lacks_is_named(toy, cells, table, message):
    with pytest.raises(ConfigError) as caught:
        planned(toy, **{"name": "manifest", "path": str(cells), "columns": ["dna"], **table})
    assert message.format(file=cells) in str(caught.value)


def test_a_box_over_the_edge_and_a_file_that_is_gone_are_named(toy, tmp_path):
    write_grey(tmp_path / "a.png", 1)
    (tmp_path / "m.csv").write_text("path,x,y,w,h\na.png,20,0,8,8\n")
    with pytest.raises(DataError, match=r"a.png: the region of 8 x 8 pixels at 20, 0 reaches over its edge"):
        opened(name="manifest", path=str(tmp_path / "m.csv"), box=["x", "y", "w", "h"])[0]
    (tmp_path / "m.csv").write_text("path\na.png\nb.png\n")
    with pytest.raises(ConfigError, match=r"data.path: .*m.csv: 1 of 2 images are not there .*: line 3: b.png"):
        planned(toy, name="manifest", path=str(tmp_path / "m.csv"))


# Splits ----------------------------------------------------------------------------------------------------------------


def test_a_group_is_never_on_both_sides(tmp_path):
    for patient in range(40):
        for number in range(3):
            write_grey(tmp_path / f"patient{patient:02}" / f"{number}.png", patient)
    table = {"name": "image-folder", "path": str(tmp_path), "labels": "none", "group": "patient[0-9]+", "holdout": 0.3}
    parts = {part: opened(**table, part=part) for part in ("train", "test", "all")}
    groups = {part: {data[i].group for i in range(len(data))} for part, data in parts.items()}
    assert not groups["train"] & groups["test"] and groups["train"] | groups["test"] == groups["all"]
    assert len(parts["train"]) + len(parts["test"]) == len(parts["all"]) == 120
    assert 0.15 < len(groups["test"]) / 40 < 0.45
    other = opened(**table, part="test", split_seed=1)
    assert {other[i].group for i in range(len(other))} != groups["test"]
    note = f"the test part has {len(parts['test'])} of 120 images, {len(groups['test'])} of 40 groups"
    assert note in info(**table, part="test").notes
    # what is added later moves nobody to the other side
    write_grey(tmp_path / "patient99" / "0.png", 1)
    again = opened(**table, part="test")
    assert {again[i].group for i in range(len(again))} - {"patient99"} == groups["test"]


def test_without_groups_the_slices_of_a_file_stay_together(tmp_path):
    for number in range(12):
        volumes.write(tmp_path / f"{number}.vol", [number] * 4)
    table = {"name": "image-folder", "path": str(tmp_path), "reader": {"name": "volume"}, "holdout": 0.5}
    train, test = (opened(**table, part=part) for part in ("train", "test"))
    files = [{data[i].id.partition("#")[0] for i in range(len(data))} for data in (train, test)]
    assert len(train) + len(test) == 48 and not files[0] & files[1]
    assert any("since no group is known" in note for note in info(**table, part="test").notes)


def test_a_pattern_that_some_images_do_not_have_is_refused(tmp_path):
    write_grey(tmp_path / "p1" / "a.png", 1)
    write_grey(tmp_path / "control" / "a.png", 1)
    with pytest.raises(DataError, match=r'"p\[0-9\]" is nowhere in control/a.png; every image needs a group'):
        opened(name="image-folder", path=str(tmp_path), group="p[0-9]")
