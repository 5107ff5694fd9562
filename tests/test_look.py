"""`dinomx data`: what is measured of images, drawn of crops, and packed."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from dinomx_core import ConfigError, DataError, api
from dinomx_core.training.look.cutting import cut_off
from dinomx_core.training.look.figures import Histogram, Moments
from tests.test_cli import dinomx


@pytest.fixture
def folder(tmp_path):
    """Ten images of two classes, 40 x 30 px, grey values 0 to 100; one is no image, and one a copy in the other class."""
    rng = np.random.default_rng(0)
    for label in ("cats", "dogs"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for number in range(5):
            pixels = rng.integers(0, 101, (30, 40), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / label / f"Ada-{number}.png")
    (tmp_path / "pets" / "cats" / "Ada-broken.png").write_bytes(b"nothing")
    copy = (tmp_path / "pets" / "cats" / "Ada-0.png").read_bytes()
    (tmp_path / "pets" / "dogs" / "Ada-0.png").write_bytes(copy)
    return tmp_path / "pets"


@pytest.fixture
def config(toy, folder):
    data = {"name": "image-folder", "path": str(folder), "channels": 1}
    return toy(data=None, loader={"max_unreadable": 0.5}) | {"data": data}


def test_histograms_grow_to_both_sides_and_lose_nothing():
    histogram, values = Histogram(1), [np.array([5, 6, 7]), np.array([-90000]), np.array([80000, 80000])]
    for part in values:
        histogram.add(part[None], [0])
    assert histogram.counts.sum() == 6
    assert histogram.quantile(0.0) <= -90000 < histogram.quantile(0.0) + histogram.width
    assert histogram.quantile(1.0) <= 80000 < histogram.quantile(1.0) + histogram.width
    bars = histogram.bars(0, -90000, 80000)
    assert sum(bars["counts"]) == 6 and len(bars["counts"]) <= 64
    assert bars["low"] <= -90000 and bars["high"] > 80000 and (bars["counts"][0], bars["counts"][-1]) == (1, 2)


def test_histograms_of_bytes_are_exact():
    histogram = Histogram(2)
    histogram.add(np.array([[0, 255, 255, 3]], np.uint8), [1])
    assert histogram.width == 1 and histogram.counts[0].sum() == 0
    assert {place: int(n) for place, n in enumerate(histogram.counts[1]) if n} == {0: 1, 3: 1, 255: 2}
    assert histogram.quantile(0.5, 1) == 3


def test_moments_joined_image_by_image_are_those_of_all_pixels():
    rng = np.random.default_rng(1)
    parts = [rng.normal(1e6, 0.5, (2, n)).astype(np.float64) for n in (3, 500, 77)]
    moments = Moments(3)
    for part in parts:
        moments.add(part, [0, 2])
    whole = np.concatenate(parts, 1)
    assert np.allclose(moments.mean[[0, 2]], whole.mean(1), rtol=1e-12)
    assert np.allclose(moments.std[[0, 2]], whole.std(1), rtol=1e-9)
    assert moments.count.tolist() == [580, 0, 580] and moments.images == 3


def test_what_a_window_cuts_off_is_found_from_the_result():
    before = np.arange(100.0)[None]
    after = np.clip((before - 10) / 40, 0, 1)
    assert cut_off(before, after) == (0.10, 0.49)
    assert cut_off(before, before / 99) == (0.0, 0.0)
    assert cut_off(before, np.concatenate([after, before / 99])) == (0.05, 0.245)


def test_a_log_cuts_nothing_off():
    before = np.arange(100.0)[None]
    low, high = cut_off(before, np.log1p(before) / np.log1p(120.0))
    assert (low, high) == (0.0, 0.0)


def test_where_all_becomes_black_or_white_what_loses_its_difference_is_counted():
    before = np.array([[1.0, 2.0, 3.0, 9.0]])
    assert cut_off(before, np.array([[0.0, 0.0, 0.0, 1.0]])) == (0.5, 0.0)


def test_images_are_measured_before_and_after_the_intensity(config, tmp_path):
    report = api.measure(config, out=tmp_path / "report", sheet=2)
    assert (report["count"], report["measured"], report["unreadable"]["count"]) == (11, 10, 1)
    assert "Ada-broken.png" in report["unreadable"]["named"][0]
    assert report["sizes"]["commonest"] == [{"height": 30, "width": 40, "images": 10}]
    assert report["numbers"]["as_read"] == {"uint8": 10}
    (before,), (after,) = report["before"], report["after"]
    assert (before["min"], before["max"]) == (0.0, 100.0)
    assert after["max"] == pytest.approx(100 / 255) and after["mean"] == pytest.approx(before["mean"] / 255, rel=1e-5)
    assert sum(before["histogram"]["counts"]) == sum(after["histogram"]["counts"]) == 10 * 30 * 40
    assert report["suggested"] == {"mean": [after["mean"]], "std": [after["std"]]}
    assert report["cut"] == {"below": 0.0, "above": 0.0}
    assert report["classes"] == [{"name": "cats", "images": 5}, {"name": "dogs", "images": 5}]
    assert json.loads((tmp_path / "report" / "data.json").read_text()) == report


def test_copies_are_counted_and_told_where_their_classes_differ(config, tmp_path):
    report = api.measure(config, out=tmp_path / "report")
    copies = report["duplicates"]
    assert (copies["images"], copies["sets"], copies["across_classes"], copies["across_groups"]) == (1, 1, 1, 0)
    assert copies["named"] == [["cats/Ada-0.png", "dogs/Ada-0.png"]]
    assert "1 sets of equal images are of several classes: some labels must be wrong" in report["warnings"]


def test_copies_in_the_held_out_part_are_told(config, folder, tmp_path):
    for number in range(40):
        (folder / "dogs" / f"copy-{number}.png").write_bytes((folder / "dogs" / "Ada-1.png").read_bytes())
    config["data"] |= {"part": "train", "holdout": 0.5}
    report = api.measure(config, out=tmp_path / "report", pictures=False)
    assert report["duplicates"]["between"]["the test part"] > 1
    count = report["duplicates"]["between"]["the test part"]
    assert (
        f"{count} images of the test part are among the training's pixel for pixel: what is measured with them is too good"
        in report["warnings"]
    )


def test_crops_on_the_sheet_are_those_of_the_run(config, tmp_path, monkeypatch):
    from dinomx_core.training.look import look

    drawn = []
    monkeypatch.setattr(look, "write", lambda report, rows, out: drawn.extend(rows))
    report = api.measure(config, out=tmp_path / "report", sheet=3)
    titles = [
        row.title for row in drawn
    ]  # the broken one is the middle one, for which the next that can be read stands in
    assert (
        titles[0] == "cats/Ada-0.png · class cats · 40 x 30 px"
        and titles[-1] == "dogs/Ada-4.png · class dogs · 40 x 30 px"
    )
    plan = api.plan(config)
    from dinomx_core.training.construct import construct
    from dinomx_core.training.data import TrainingImages

    images = TrainingImages(
        construct(plan.spec.data),
        construct(plan.spec.augmentation, 1),
        plan.seed,
        True,
        8,
        construct(plan.spec.intensity),
    )
    position = next(p for p in range(11) if images.positions.index(p) == 0)
    crop = images[position][0]["global"][0].pixels
    shown = torch.from_numpy(np.array(drawn[0].crops[0][1]))
    assert drawn[0].crops[0][0] == "global 1"
    assert torch.allclose(shown / 255, (crop[0] * 0.35 + 0.3).clamp(0, 1), atol=1 / 255)
    assert report["rule"].startswith(
        'Shown: channel "0" in grey; 0 is black, 1 white. Crops as the run sees them at seed 0'
    )


def test_the_page_needs_nothing_else_and_escapes_names(config, folder, tmp_path):
    (folder / "cats" / "Ada-1.png").rename(folder / "cats" / "<b>&.png")
    api.measure(config, out=tmp_path / "report", sheet=11)
    page = (tmp_path / "report" / "index.html").read_text()
    assert "&lt;b&gt;&amp;.png" in page and "<b>&.png" not in page
    assert not re.search(r"(src|href)=\"(?!data:)", page) and "http" not in page and "<script" not in page
    assert "prefers-color-scheme: dark" in page
    assert Image.open(tmp_path / "report" / "sheet.png").width > 600


def test_numbers_only_leave_no_picture_of_an_earlier_report(config, tmp_path):
    api.measure(config, out=tmp_path / "report")
    assert (tmp_path / "report" / "sheet.png").exists()
    report = api.measure(config, out=tmp_path / "report", pictures=False)
    assert not (tmp_path / "report" / "sheet.png").exists() and report["sheet"] == ""
    assert "data:image" not in (tmp_path / "report" / "index.html").read_text()


def test_with_hashes_no_name_of_file_group_or_class_is_told(config, tmp_path):
    config["data"]["group"] = "Ada-[0-9a-z]+"
    report = api.measure(config, out=tmp_path / "report", hash_ids=True)
    assert report["groups"]["count"] == 5 and report["unreadable"]["count"] == 1
    written = json.dumps(report) + (tmp_path / "report" / "index.html").read_text()
    for name in ("Ada", "cats", "dogs", "pets"):
        assert name not in written.replace("pets/../", "")
    again = api.measure(config, out=tmp_path / "report", hash_ids=True)
    assert again["classes"][0]["name"] != report["classes"][0]["name"]


def test_a_config_that_plan_refuses_is_measured_as_far_as_it_goes(config, tmp_path):
    config["run"]["batch_size"] = 500
    report = api.measure(config, out=tmp_path / "report")
    assert "config: run.batch_size: 500 is more than the 11 images there are" in report["warnings"][0]
    assert report["sheet"]
    config["intensity"] = {"name": "full-range", "range": [0, 1]}
    assert api.measure(config, out=tmp_path / "report")["unreadable"]["count"] == 11


def test_flat_pictures_and_a_far_mean_are_told(config, folder, tmp_path):
    for file in folder.rglob("Ada-[0-9].png"):
        Image.fromarray((np.array(Image.open(file)) // 4 + 200).astype(np.uint8)).save(file)
    warnings = "\n".join(api.measure(config, out=tmp_path / "report", pictures=False)["warnings"])
    assert "the middle 98% of the pixels use 0.78 to 0.88 of 0..1: pictures are flat" in warnings
    assert "augmentation.mean is far from what the pixels have" in warnings


def test_statistics_are_of_all_images_and_by_group(config, folder, tmp_path):
    (folder / "cats" / "Ada-broken.png").unlink()
    config["data"]["group"] = "^[a-z]+"
    report = api.measure(config, out=tmp_path / "report", images=2, statistics=tmp_path / "stats.json", pictures=False)
    found = json.loads((tmp_path / "stats.json").read_text())
    pixels = {g: np.stack([np.array(Image.open(p)) for p in sorted((folder / g).iterdir())]) for g in ("cats", "dogs")}
    both = np.concatenate(list(pixels.values()))
    assert (report["measured"], found["count"]) == (2, 10)
    assert found["mean"] == [pytest.approx(both.mean(), rel=1e-6)] and found["std"] == [
        pytest.approx(both.std(), rel=1e-6)
    ]
    for group, own in pixels.items():
        assert found["groups"][group] == {
            "count": 5, "mean": [pytest.approx(own.mean(), rel=1e-6)], "std": [pytest.approx(own.std(), rel=1e-6)],
        }  # fmt: skip


def test_a_channel_that_there_is_not_is_refused(config, tmp_path):
    with pytest.raises(ConfigError) as error:
        api.measure(config, out=tmp_path / "report", channels=(1,))
    assert str(error.value) == "--channels: there is no channel 1; they go from 0 to 0"


def test_a_folder_that_cannot_be_written_is_an_error(config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError) as error:
        api.measure(config, out=tmp_path / "file")
    assert str(error.value) == f"{tmp_path}/file: cannot be written: File exists"


def test_packed_images_read_the_same(config, tmp_path):
    done = api.pack(config, tmp_path / "tars", shard_size=4)
    assert [tar["samples"] for tar in done["tars"]] == [4, 3, 3]
    assert "Ada-broken.png" in done["tars"][1]["left_out"][0]
    again = {**config, "data": {"name": "shards", "path": str(tmp_path / "tars")}}
    ours, theirs = (api.measure(c, out=tmp_path / "report", pictures=False) for c in (config, again))
    assert ours["before"][0]["mean"] == theirs["before"][0]["mean"] and ours["classes"] == theirs["classes"]


@pytest.mark.slow
def test_the_command_looks_packs_and_explains_both(config, tmp_path):
    (tmp_path / "pets.toml").write_text(api.to_toml(config))
    told = dinomx("data", "--help").stdout
    assert told.startswith("Usage: ")
    for text in ("data CONFIG [OPTIONS]", "data pack CONFIG OUT [OPTIONS]", "--hash-ids", "--statistics", "pack "):
        assert text in told
    done = dinomx("data", tmp_path / "pets.toml", "--sheet", "2", "--images", "5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "images       11, of which 4 were measured; 1 unreadable" in done.stdout
    assert "report       data-report/pets/index.html" in done.stdout
    assert (tmp_path / "data-report" / "pets" / "sheet.png").exists()
    wrong = dinomx("data", tmp_path / "pets.toml", "--channels", "red", cwd=tmp_path)
    assert (wrong.returncode, wrong.stderr) == (
        2,
        'error: --channels: expected one to three numbers such as 0,3,5, got "red"\n',
    )


@pytest.mark.slow
def test_the_command_packs_and_prints_json(config, tmp_path):
    (tmp_path / "pets.toml").write_text(api.to_toml(config))
    packed = dinomx("data", "pack", tmp_path / "pets.toml", "tars", cwd=tmp_path)
    assert packed.returncode == 0, packed.stderr
    assert (
        "packed       10 images into 1 tars in tars" in packed.stdout and (tmp_path / "tars" / "shards.json").exists()
    )
    told = dinomx("data", tmp_path / "pets.toml", "--json", "--no-images", cwd=tmp_path)
    assert json.loads(told.stdout)["measured"] == 10
