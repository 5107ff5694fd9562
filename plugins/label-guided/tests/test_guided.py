"""Crops that lie on objects: where, how often, and that nothing else changes."""

from collections import Counter
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import save_file

from dinomx_core import ConfigError, DataError, api
from dinomx_core.training.construct import construct
from dinomx_core.training.flow import Item
from dinomx_core.training.guide import Guide
from dinomx_core.training.regions import Regions
from dinomx_core.training.streams import Stream
from dinomx_label_guided.guided import around
from tests.fixtures import TIMINGS, in_table, rows
from tests.test_resume import assert_a_cut_changes_nothing

HEIGHT, WIDTH = 40, 60
TABLE = {
    "globals": {"count": 2, "size": 16, "area": [0.5, 1.0]},
    "locals": {"count": 6, "size": 8, "area": [0.05, 0.1]},
    "mean": [0.0],
    "std": [1.0],
}


def augmentation(channels=3, domain="multicrop", **where):
    table = {"name": domain, **TABLE, **({"where": {"name": "label-guided", **where}} if where else {})}
    return construct(in_table("augmentation", table), channels)


def image(regions=None, channels=3):
    pixels = torch.arange(channels * HEIGHT * WIDTH).view(channels, HEIGHT, WIDTH).remainder(255).to(torch.uint8)
    return Item(pixels, id="x", regions=None if regions is None else lambda: regions)


def mask(**places):
    """A mask: class number -> (rows, columns) slices."""
    result = torch.zeros(HEIGHT, WIDTH, dtype=torch.int64)
    for number, (down, across) in places.items():
        result[down, across] = int(number.strip("c"))
    return result


SMALL = Regions(mask(c3=(slice(4, 7), slice(50, 54))))


def crops(regions, count=200, view="local", first=1, **where):
    """Boxes (top, left, height, width) of the first crops of many images."""
    augment, item = augmentation(**where), image(regions)
    return [crop for number in range(count) for crop in augment(item, Stream(7, number))[view][:first]]


@pytest.mark.parametrize("regions", [None, SMALL])
@pytest.mark.parametrize("domain", ["multicrop", "microscopy"])
def test_with_probability_0_it_is_as_if_it_were_not_there(regions, domain):
    plain, guided = augmentation(domain=domain), augmentation(domain=domain, probability=0.0, globals=2)
    for number in range(20):
        one, other = (augment(image(regions), Stream(3, number)) for augment in (plain, guided))
        for view in ("global", "local"):
            for ours, theirs in zip(one[view], other[view]):
                assert torch.equal(ours.pixels, theirs.pixels)
                assert (ours.box, theirs.placed) == (theirs.box, "")


def test_only_the_first_crops_move_and_none_changes_its_size():
    plain, guided = augmentation(), augmentation(probability=1.0, locals=2, globals=1)
    one, other = (augment(image(SMALL), Stream(5, 1)) for augment in (plain, guided))
    for view, moved in (("local", 2), ("global", 1)):
        for number, (ours, theirs) in enumerate(zip(one[view], other[view])):
            assert ours.box[2:] == theirs.box[2:]
            assert theirs.placed == ("guided" if number < moved else "")
            if number >= moved:
                assert torch.equal(ours.pixels, theirs.pixels)


def test_centres_lie_in_the_object_and_crops_in_the_image():
    clamped = 0
    for crop in crops(SMALL, probability=1.0):
        top, left, height, width = (abs(n) for n in crop.box)
        assert top >= 0
        assert top + height <= HEIGHT
        assert left + width <= WIDTH
        row, column = top + height // 2, left + width // 2
        clamped += left + width == WIDTH or top == 0
        assert 4 <= row < 7 or top == 0
        assert 50 <= column < 54 or left + width == WIDTH
    assert clamped  # the object lies near a corner


def test_a_box_reaches_the_object_from_every_edge():
    for point in ((0, 0), (0, WIDTH - 1), (HEIGHT - 1, 0), (HEIGHT - 1, WIDTH - 1), (20, 30)):
        for off_centre in (0.0, 0.5, 1.0):
            for seed in range(20):
                box = around(point_of(*point), (9, 9, 11, 14), (HEIGHT, WIDTH), off_centre, Random(seed))
                top, left, height, width = box
                assert top <= point[0] < top + height
                assert left <= point[1] < left + width
                assert 0 <= top <= HEIGHT - 11
                assert 0 <= left <= WIDTH - 14


@pytest.mark.parametrize(("off_centre", "rows"), [(0.0, {5}), (0.5, {2, 3, 4, 5, 6, 7, 8}), (1.0, set(range(11)))])
def test_a_point_lies_in_the_middle_of_its_crop_or_anywhere_in_it(off_centre, rows):
    boxes = [around(point_of(20, 30), (0, 0, 11, 14), (HEIGHT, WIDTH), off_centre, Random(seed)) for seed in range(400)]
    assert {20 - top for top, *_ in boxes} == rows


def point_of(row, column):
    from dinomx_label_guided.guided import Point

    return Point(row, column)


def test_as_many_crops_are_guided_as_the_probability_says():
    share = sum(crop.placed == "guided" for crop in crops(SMALL, 1000, probability=0.3)) / 1000
    assert 0.25 < share < 0.35


def shares(regions, sides, **where):
    """How many crops have their centres left and right of the middle."""
    found = Counter()
    for crop in crops(regions, 600, probability=1.0, **where):
        found["left" if crop.box[1] + abs(crop.box[3]) / 2 < WIDTH / 2 else "right"] += 1
    return [found[side] / 600 for side in sides]


def test_classes_are_drawn_by_their_weights():
    both = Regions(mask(c1=(slice(15, 25), slice(10, 20)), c2=(slice(15, 25), slice(40, 50))))
    assert shares(both, ["left"])[0] == pytest.approx(0.5, abs=0.07)
    assert shares(both, ["left"], weights={"1": 3.0})[0] == pytest.approx(0.75, abs=0.07)
    assert shares(both, ["left"], weights={"1": 0.0})[0] == 0.0
    named = Regions(None, torch.tensor([[15, 10, 10, 10], [15, 40, 10, 10]]), torch.tensor([1, 2]), ("cell", "bud"))
    assert shares(named, ["left"], weights={"cell": 3.0})[0] == pytest.approx(0.75, abs=0.07)
    left, right = mask(c1=(slice(15, 25), slice(10, 20))), torch.tensor([[15, 40, 10, 10]])
    mixed = Regions(
        left, right, torch.tensor([1]), ("cell",)
    )  # the boxes' first class is another one than the mask's class 1
    assert shares(mixed, ["left"], weights={"cell": 0.0})[0] == 1.0


def test_small_objects_count_as_much_as_large_ones_unless_pixels_are_drawn():
    both = Regions(mask(c1=(slice(15, 17), slice(10, 12))) + mask(c1=(slice(5, 35), slice(34, 54))))
    assert shares(both, ["left"])[0] == pytest.approx(0.5, abs=0.07)
    assert shares(both, ["left"], draw="pixels")[0] < 0.03
    boxes = Regions(None, torch.tensor([[15, 10, 2, 2], [5, 34, 30, 20]]), torch.tensor([1, 1]), ("a",))
    assert shares(boxes, ["left"])[0] == pytest.approx(0.5, abs=0.07)
    assert shares(boxes, ["left"], draw="pixels")[0] < 0.03


@pytest.mark.parametrize("regions", [None, Regions(mask()), Regions(mask(c2=(slice(0, 9), slice(0, 9))))])
def test_images_without_objects_have_plain_crops_and_are_counted(regions):
    plain = augmentation()(image(), Stream(1, 1))
    guided = augmentation(probability=1.0, weights={"2": 0.0, "1": 1.0})(image(regions), Stream(1, 1))
    assert [crop.box for crop in guided["local"]] == [crop.box for crop in plain["local"]]
    assert [crop.placed for crop in guided["local"]] == ["without-object"] * 4 + ["", ""]


@pytest.mark.parametrize("channels", [1, 3, 7])
def test_any_number_of_channels(channels):
    found = augmentation(channels, probability=1.0)(image(SMALL, channels), Stream(2, 2))["local"][0]
    assert found.pixels.shape == (channels, 8, 8)
    assert found.placed == "guided"


def test_regions_that_do_not_fit_are_an_unreadable_image():
    wrong = Regions(torch.zeros(3, 3, dtype=torch.int64))
    with pytest.raises(DataError, match="x: its mask has 3 x 3 pixels, the image 40 x 60"):
        augmentation(probability=1.0)(image(wrong), Stream(0, 0))


@pytest.fixture
def boxed(tmp_path):
    """Digits with a box on every image but each third."""
    data = construct(in_table("dataset", {"name": "digits", "split": "train"}))
    lines = [f"{data[n].id},2,1,3,5" for n in range(len(data)) if n % 3]
    (tmp_path / "boxes.csv").write_text("image,left,top,width,height\n" + "\n".join(lines))
    images = {"name": "digits", "split": "train"}
    return {"name": "marked", "split": None, "images": images, "boxes": str(tmp_path / "boxes.csv")}


def guided(boxed, **options):
    return {
        "data": boxed,
        "augmentation": {"where": {"name": "label-guided", "probability": 0.5, "locals": 2, **options}},
    }


def test_a_run_counts_its_crops_and_tells_of_those_without_an_object(toy, boxed, capsys):
    from dinomx_core.progress import TextProgress

    done = api.run(toy(run={"steps": 3}, **guided(boxed)), progress=TextProgress())
    found = rows(done.folder / "metrics.jsonl")
    placed = [(row.get("placed/guided", 0), row.get("placed/without-object", 0)) for row in found]
    assert all(some > 0 and none >= 0 and some + none <= 0.5 for some, none in placed)  # two local crops of four
    assert sum(none for _, none in placed) > 0
    told = [line.strip() for line in "".join(capsys.readouterr()).splitlines() if "augmentation.where" in line]
    share = next(100 * none / (some + none) for some, none in placed if none)
    assert len(told) == 1
    assert told[0].partition("  ")[2] == (
        f"augmentation.where: {share:.3g}% of this step's crops that were to be placed could not be put where they should lie; "
        'metrics.jsonl has all shares as "placed/without-object"'
    )


def test_with_probability_0_a_run_is_the_same_and_workers_change_nothing(toy, boxed):
    def losses(name, **changes):
        done = api.run(toy(**{**changes, "run": {"steps": 3, "name": name}}))
        return [{k: v for k, v in row.items() if k not in TIMINGS} for row in rows(done.folder / "metrics.jsonl")]

    assert losses("plain") == losses("none", **guided(boxed, probability=0.0))
    assert losses("here", **guided(boxed)) == losses("there", loader={"workers": 2}, **guided(boxed))


def test_a_guided_run_goes_on_where_it_was_cut(toy, boxed):
    assert_a_cut_changes_nothing(toy(run={"steps": 8}, **guided(boxed)))


def test_data_without_objects_are_refused(toy):
    with pytest.raises(ConfigError) as caught:
        api.plan(toy(augmentation={"where": {"name": "label-guided"}}))
    assert str(caught.value) == (
        "config: augmentation.where: the images come without masks or boxes; give [data] a column of masks (manifest), or wrap it: name = "
        '"marked", images = {...}, masks = "masks/{stem}.png"'
    )
    assert api.plan(toy(augmentation={"where": {"name": "label-guided", "probability": 0.0}})).steps == 4
    with pytest.raises(ConfigError, match=r"where.weights: must be 0 or more, got \[-1.0\]"):
        api.plan(toy(augmentation={"where": {"name": "label-guided", "weights": {"1": -1.0}}}))


def test_data_that_cannot_be_read_are_told_of_once(toy, boxed):
    with pytest.raises(ConfigError) as caught:
        api.plan(toy(**guided({**boxed, "boxes": "none.csv"}, weights={"cell": 2.0})))
    assert str(caught.value) == f'config: data.boxes: there is no file "{Path.cwd()}/none.csv"'


def test_weights_of_unknown_classes_are_refused(toy, boxed):
    config = guided(boxed)
    config["augmentation"]["where"]["weights"] = {"1": 1.0, "cells": 2.0, "3": 0.0}
    with pytest.raises(ConfigError) as caught:
        api.plan(toy(**config))
    assert str(caught.value) == (
        'config: augmentation.where.weights: "cells" is no class: boxes are of 1; masks name theirs by numbers'
    )


def looking(**options):
    return {
        "augmentation": {"where": {"name": "attention-guided", "probability": 1.0, "every": 2, "after": 3, **options}}
    }


def metrics(done):
    return [{k: v for k, v in row.items() if k not in TIMINGS} for row in rows(done.folder / "metrics.jsonl")]


def test_crops_follow_the_brightest_patches():
    density = torch.zeros(4, 6)
    density[1, 4], density[3, 0], density[0, 0] = 0.5, 0.3, 0.2
    found = Regions(density=density, seen=torch.tensor([0.0, 0.0, 40.0, 60.0]))
    table = {"name": "multicrop", **TABLE, "where": {"name": "attention-guided", "probability": 1.0, "mass": 0.7}}
    augment = construct(in_table("augmentation", table), 3)
    boxes = [augment(image(found), Stream(1, number))["local"][0].box for number in range(200)]
    centres = Counter(
        (int(top + height / 2) // 10, int(left + abs(width) / 2) // 10) for top, left, height, width in boxes
    )
    assert centres[(1, 4)] / 200 == pytest.approx(5 / 8, abs=0.12)
    assert not centres[(0, 0)]
    nothing = augment(image(None), Stream(1, 1))["local"][0]
    assert nothing.placed == ""


def test_the_teacher_is_asked_now_and_then_and_workers_change_nothing(toy, tmp_path):
    one = api.run(toy(run={"steps": 7, "name": "one"}, **looking()))
    shares = [row.get("placed/guided", 0.0) for row in metrics(one)]
    assert shares == [
        0,
        0,
        0,
        0,
        0.5,
        0.5,
        0.5,
    ]  # the two local crops of four, from the first whole period after step 3 on
    assert metrics(api.run(toy(run={"steps": 7, "name": "two"}, loader={"workers": 2}, **looking()))) == metrics(one)
    never = api.run(toy(run={"steps": 7, "name": "never"}, **looking(probability=0.0)))
    assert metrics(never) == metrics(api.run(toy(run={"steps": 7, "name": "plain"})))
    assert sorted(file.name for file in (one.folder / "attention").iterdir())[-1] == "3-0-of-1.safetensors"


@pytest.mark.parametrize("every", [2, 3])
def test_an_attention_guided_run_goes_on_where_it_was_cut(toy, every):
    assert_a_cut_changes_nothing(toy(run={"steps": 9}, **looking(every=every)))


def test_maps_that_are_gone_are_told(toy):
    import shutil

    from dinomx_core.errors import TrainingError

    config = toy(run={"steps": 6, "name": "gone"}, checkpoint={"every": 4}, **looking())
    folder = api.run(config).folder
    shutil.rmtree(folder / "attention")
    shutil.rmtree(folder / "checkpoints" / "6")
    with pytest.raises(
        TrainingError, match="the attention maps of the steps from 4 on are not there; bring them back, or start anew"
    ):
        api.run(config, resume=True)


def test_a_run_reads_no_maps_of_one_that_it_overwrites(toy):
    def losses(name, seed, **more):
        run = {"steps": 6, "name": name, "seed": seed}
        done = api.run(toy(run=run, loader={"workers": 2}, **looking(every=1, after=1)), overwrite=True, **more)
        return metrics(done)

    fresh = losses("fresh", 1)
    assert losses("again", 0) != fresh
    assert losses("again", 1) == fresh
    plain = api.run(toy(run={"steps": 1, "name": "again"}), overwrite=True)
    assert not (plain.folder / "attention").exists()


def maps(guide, period, rank, world, rows, value):
    file = guide.file(period, rank, world)
    found = {"maps": torch.full((rows, 2, 2), value), "seen": torch.zeros(rows, 4), "read": torch.ones(rows).bool()}
    save_file(found, file)


def test_maps_are_the_newest_of_all_images_by_any_number_of_processes(tmp_path):
    guide = Guide(tmp_path, every=2, after=1, images=4, steps=7)  # periods of 8 images, the last of 4
    maps(guide, 1, 0, 3, 3, 0.0)  # of three processes, one of which was cut off
    maps(guide, 1, 1, 3, 3, 0.0)
    maps(guide, 1, 0, 1, 6, 0.0)  # of a run with fewer images
    assert guide.files(1) == []
    maps(guide, 1, 0, 2, 4, 1.0)
    maps(guide, 1, 1, 2, 4, 2.0)
    assert [float(guide.regions(8 + row).density[0, 0]) for row in range(8)] == [1.0, 2.0] * 4
    maps(guide, 1, 0, 1, 8, 3.0)
    assert guide.files(1) == [guide.file(1, 0, 1)]
    maps(guide, 3, 0, 1, 4, 4.0)
    assert float(guide.regions(27).density[0, 0]) == 4.0
    for step, left in ((3, {1}), (2, {1}), (0, set())):  # those of the steps that follow are made again
        maps(guide, 2, 0, 2, 4, 0.0)
        guide.restart(step)
        kept = {int(file.name.partition("-")[0]) for file in tmp_path.iterdir()}
        assert kept == left | ({2} if step == 3 else set())


@pytest.mark.slow
def test_two_processes_ask_as_one_does(toy):
    alone = metrics(api.run(toy(run={"steps": 7, "name": "alone"}, backbone={"drop_path": 0.0}, **looking())))
    both = metrics(
        api.run(
            toy(
                run={"steps": 7, "name": "both"},
                backbone={"drop_path": 0.0},
                parallelism={"name": "ddp", "processes": 2},
                **looking(),
            )
        )
    )
    assert [row["loss"] for row in both] == pytest.approx([row["loss"] for row in alone], abs=2e-3)
    assert [row.get("placed/guided") for row in both] == [row.get("placed/guided") for row in alone]


def test_a_backbone_without_attention_is_refused(toy):
    sizes = dict.fromkeys(("width", "depth", "heads", "patch_size", "drop_path"))
    config = toy(backbone={"name": "dinov3-convnext", **sizes}, **looking())
    config["augmentation"]["globals"]["size"] = config["augmentation"]["locals"]["size"] = 32
    with pytest.raises(ConfigError, match=r"augmentation.where: the backbone has no attention; take a transformer"):
        api.plan(config)
