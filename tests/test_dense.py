"""Patch features against masks."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from dinomx_core import ConfigError, DataError, api
from dinomx_core.builtin.evaluators import dense
from dinomx_core.builtin.evaluators.dense import NONE, drawn, majority
from dinomx_core.builtin.evaluators.dense_linear import by_image
from dinomx_core.builtin.evaluators.scores import overlaps
from dinomx_core.builtin.single import SingleProcess
from dinomx_core.declare.facts import Preprocessing
from dinomx_core.training.construct import construct
from dinomx_core.training.contracts import Encoder
from dinomx_core.training.flow import Tokens
from tests.fixtures import in_table, rows

SIDE, PATCH = 32, 8


def pictures(root, name, count, seed, masks=None):
    """Images whose quarters are grey or bright, and masks that say which; a manifest of them. masks: numbers of those that have one."""
    rng = np.random.default_rng(seed)
    (root / name).mkdir(parents=True)
    lines = []
    for number in range(count):
        coarse = rng.integers(0, 2, (SIDE // PATCH, SIDE // PATCH))
        coarse.flat[:2] = (0, 1)
        mask = np.kron(coarse, np.ones((PATCH, PATCH))).astype(np.uint8)
        image = (60 + 120 * mask + rng.integers(0, 20, mask.shape)).astype(np.uint8)
        Image.fromarray(image).save(root / name / f"{number}.png")
        Image.fromarray(mask).save(root / name / f"{number}-mask.png")
        has = masks is None or number in masks
        lines.append(json.dumps({"path": f"{name}/{number}.png", "mask": f"{name}/{number}-mask.png" if has else None}))
    (root / f"{name}.jsonl").write_text("\n".join(lines))
    return {"name": "manifest", "path": str(root / f"{name}.jsonl"), "mask": "mask", "channels": 1}


def encoder_of(features):
    """An encoder whose patches are what a function makes of the images (B, H, W) -> (B, h, w, D)."""

    def encode(items):
        found = features(torch.stack([item.image[0].float() for item in items]))
        grid = (1, *found.shape[1:3])
        return Tokens(found.mean((1, 2)), torch.empty(len(found), 0, found.shape[3]), found.flatten(1, 2), grid)

    how = Preprocessing(SIDE, SIDE, (0.0,), (1.0,))
    return Encoder(None, how, 1, SingleProcess(None, torch.device("cpu")), lambda item: item, encode, lambda *_: None)


def means(images):
    """What tells grey from bright: (B, H, W) -> (B, h, w, 2)."""
    patches = images.unflatten(1, (-1, PATCH)).unflatten(3, (-1, PATCH)).mean((2, 4))
    return torch.stack([patches / 100 - 1.2, torch.ones_like(patches)], -1)


def blind(images):
    return torch.ones(len(images), SIDE // PATCH, SIDE // PATCH, 2)


@pytest.fixture
def sets(tmp_path):
    return {"bank": pictures(tmp_path, "bank", 12, 0), "query": pictures(tmp_path, "query", 6, 1)}


TABLES = [{"name": "dense-knn", "k": 5}, {"name": "dense-linear", "epochs": 100}]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table["name"])
def test_features_that_tell_the_classes_segment_all_but_the_edges(sets, table):
    found = construct(in_table("evaluator", {**table, **sets})).evaluate(encoder_of(means))
    # Scores are brought to the pixels by interpolation, which rounds the corners of patches off.
    assert found["miou"] > 0.8 and found["mdice"] > found["miou"] and found["info/without_masks"] == 0
    assert found["miou"] == pytest.approx((found["iou/0"] + found["iou/1"]) / 2)
    again = construct(in_table("evaluator", {**table, **sets})).evaluate(encoder_of(means))
    assert again == found


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table["name"])
def test_features_that_tell_nothing_give_all_pixels_one_class(sets, table):
    found = construct(in_table("evaluator", {**table, **sets})).evaluate(encoder_of(blind))
    ious, dices = sorted([found["iou/0"], found["iou/1"]]), sorted([found["dice/0"], found["dice/1"]])
    assert ious[0] == dices[0] == 0
    assert dices[1] == pytest.approx(2 * ious[1] / (1 + ious[1]))
    masks = [np.array(Image.open(f)) for f in (sets_root(sets) / "query").glob("*-mask.png")]
    assert ious[1] in (pytest.approx(np.mean(masks)), pytest.approx(1 - np.mean(masks)))


def sets_root(sets):
    from pathlib import Path

    return Path(sets["query"]["path"]).parent


def test_a_perfect_patch_grid_is_judged_by_hand():
    """One patch a pixel: nothing is interpolated, so the figures are those of the confusion alone."""
    assert overlaps({(0, 0): 6, (0, 1): 2, (1, 1): 4}) == {
        "miou": pytest.approx((6 / 8 + 4 / 6) / 2),
        "mdice": pytest.approx((12 / 14 + 8 / 10) / 2),
        "iou/0": 6 / 8, "iou/1": 4 / 6, "dice/0": 12 / 14, "dice/1": 8 / 10,
    }  # fmt: skip
    assert overlaps({(3, 3): 5}) == {"miou": 1, "mdice": 1, "iou/3": 1, "dice/3": 1}


def test_a_patch_is_what_most_of_its_known_pixels_are():
    mask = torch.full((4, 6), 7)
    mask[:2, :2] = torch.tensor([[1, 2], [2, 1]])  # as many of both: the smaller number
    mask[:2, 2:4] = torch.tensor([[NONE, NONE], [NONE, 3]])
    mask[2:, :2] = NONE
    assert majority(mask, 2, 3).tolist() == [1, 3, 7, NONE, 7, 7]


def test_patches_of_the_bank_are_drawn_the_same_every_time_and_never_from_unknown_pixels():
    classes = torch.tensor([0, NONE] * 50)
    one, other = drawn(3, classes, 10), drawn(3, classes, 10)
    assert one.tolist() == other.tolist() == sorted(one.tolist()) and len(one) == 10
    assert (classes[one] == 0).all() and drawn(4, classes, 10).tolist() != one.tolist()
    assert drawn(3, classes, 99).tolist() == list(range(0, 100, 2))


def test_the_bank_is_no_larger_than_wanted_and_has_patches_of_every_image(sets):
    few = construct(in_table("evaluator", {"name": "dense-knn", "patches": 30, **sets})).learn(encoder_of(means))
    assert len(few.patches) == 24 and few.images.unique(return_counts=True)[1].tolist() == [2] * 12
    least = construct(in_table("evaluator", {"name": "dense-knn", "patches": 5, **sets})).learn(encoder_of(means))
    assert len(least.patches) == 5 and least.images.tolist() == [0, 3, 6, 8, 11]


def test_patches_of_one_image_are_on_one_side():
    images = torch.tensor([0, 0, 4, 4, 7, 7])
    training, judging = by_image(images, 0.1)
    assert judging.tolist() == [True, True, False, False, False, False] and training.tolist() == (~judging).tolist()
    assert all(part.all() for part in by_image(torch.tensor([3, 3]), 0.1))


def test_pixels_to_ignore_are_neither_learnt_nor_judged(tmp_path, sets):
    for file in (tmp_path / "query").glob("*-mask.png"):
        mask = np.array(Image.open(file))
        mask[mask == 0] = 255
        mask[:PATCH, PATCH:] = 2  # of which the bank knows nothing
        Image.fromarray(mask).save(file)
    found = construct(in_table("evaluator", {"name": "dense-knn", "k": 5, **sets})).evaluate(encoder_of(means))
    assert {name for name in found if name.startswith("iou")} == {"iou/0", "iou/1", "iou/2"}
    assert found["iou/0"] == 0  # told where the truth is 1 or 2; never judged where it is 255
    for file in (tmp_path / "bank").glob("*-mask.png"):
        mask = np.array(Image.open(file))
        mask[:PATCH, :PATCH] = 2
        Image.fromarray(mask).save(file)
    evaluator = construct(in_table("evaluator", {"name": "dense-knn", "ignore": 1, **sets}))
    assert evaluator.learn(encoder_of(means)).labels.unique().tolist() == [0, 2]


def remake(folder, change):
    """Write every mask of a folder anew; returns how many pixels are not 0."""
    count = 0
    for file in folder.glob("*-mask.png"):
        mask = change(np.array(Image.open(file)))
        Image.fromarray(mask).save(file)
        count += int((mask > 0).sum())
    return count


@pytest.mark.parametrize("objects", [False, True])
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table["name"])
def test_masks_of_0_and_255_are_refused_unless_nothing_is_ignored(tmp_path, sets, table, objects):
    marked = remake(tmp_path / "bank", lambda mask: mask * np.uint8(255))
    table = {**table, "objects": objects, **sets}
    with pytest.raises(DataError) as caught:
        construct(in_table("evaluator", table)).evaluate(encoder_of(means))
    assert str(caught.value) == (
        f"the bank is of one class only, 0: its masks hold 0 and 255, and ignore = 255 leaves out {marked} of {12 * SIDE**2} pixels; set "
        "ignore = -1 if 255 is a class, or else name images of two classes or more"
    )
    marked = remake(tmp_path / "query", lambda mask: mask * np.uint8(255))
    found = construct(in_table("evaluator", {**table, "ignore": -1})).evaluate(encoder_of(means))
    assert found["miou"] > 0.8 and ("iou/1" if objects else "iou/255") in found
    remake(tmp_path / "bank", lambda mask: np.minimum(mask, 1))
    with pytest.raises(DataError) as caught:
        construct(in_table("evaluator", table)).evaluate(encoder_of(means))
    assert str(caught.value) == (
        f"the query is of one class only, 0: its masks hold 0 and 255, and ignore = 255 leaves out {marked} of {6 * SIDE**2} pixels; set "
        "ignore = -1 if 255 is a class, or else name images of two classes or more"
    )


def test_sets_of_one_class_are_refused(tmp_path, sets):
    remake(tmp_path / "query", lambda mask: mask * 0 + 7)
    with pytest.raises(DataError) as caught:
        construct(in_table("evaluator", {"name": "dense-knn", **sets})).evaluate(encoder_of(means))
    assert str(caught.value) == (
        "the query is of one class only, 7: its masks hold 7; name images of two classes or more"
    )
    remake(tmp_path / "bank", lambda mask: np.kron(np.eye(SIDE // 4), np.arange(16).reshape(4, 4)).astype(np.uint8))
    with pytest.raises(DataError) as caught:
        construct(in_table("evaluator", {"name": "dense-knn", **sets})).evaluate(encoder_of(means))
    assert str(caught.value) == (
        "the bank is of one class only, 0: its masks hold 0, 1, 2, 3, 4 and 11 more; name images of two classes or more"
    )


def test_images_without_a_mask_are_left_out_and_counted(tmp_path):
    bank = pictures(tmp_path, "bank", 12, 0, masks=range(9))
    sets = {"bank": bank, "query": pictures(tmp_path, "query", 6, 1, masks=[1, 4])}
    calls = []
    found = construct(in_table("evaluator", {"name": "dense-knn", "k": 5, **sets})).evaluate(
        encoder_of(lambda images: calls.append(len(images)) or means(images))
    )
    assert found["info/without_masks"] == 7 and calls == [9, 2] and found["miou"] > 0.8
    none = {"bank": bank, "query": pictures(tmp_path, "none", 3, 1, masks=[])}
    with pytest.raises(DataError) as caught:
        construct(in_table("evaluator", {"name": "dense-linear", "epochs": 1, **none})).evaluate(encoder_of(means))
    assert str(caught.value) == "none of the 3 images of `query` that can be read has a mask"


def test_masks_that_number_objects_are_one_class(tmp_path, sets):
    for folder in ("bank", "query"):
        for number, file in enumerate((tmp_path / folder).glob("*-mask.png")):
            Image.fromarray(np.array(Image.open(file)) * np.uint8(number + 2)).save(file)
    table = {"name": "dense-knn", "k": 5, "objects": True, **sets}
    found = construct(in_table("evaluator", table)).evaluate(encoder_of(means))
    assert set(found) == {"miou", "mdice", "iou/0", "iou/1", "dice/0", "dice/1", "info/without_masks"}
    assert found["miou"] > 0.8


def test_evaluators_of_one_round_share_patches_unless_they_are_too_large(sets, monkeypatch):
    def passes(kept):
        monkeypatch.setattr(dense, "KEPT", kept)
        calls, encoder = [], encoder_of(lambda images: calls.append(len(images)) or means(images))
        both = [construct(in_table("evaluator", {**table, **sets})).evaluate(encoder) for table in TABLES]
        return calls, both

    shared, again = passes(1 << 30), passes(10)
    assert shared[0] == [12, 6] and again[0] == [12, 6, 6] and shared[1] == again[1]


def test_a_run_has_their_figures_and_shows_no_parts(toy, tmp_path, capsys):
    from dinomx_core.progress import TextProgress

    sets = {"bank": pictures(tmp_path, "bank", 12, 0), "query": pictures(tmp_path, "query", 6, 1)}
    evaluate = {"dense-knn": {"k": 5, **sets}, "dense-linear": {"epochs": 30, **sets}}
    config = toy(
        run={"steps": 2}, evaluate=evaluate, checkpoint={"keep_best": "dense-knn/dice/1"},
        augmentation={"globals": {"size": SIDE}, "locals": {"size": 16}},
    )  # fmt: skip
    result = api.run(config, progress=TextProgress())
    names = {"miou", "mdice", "iou/0", "iou/1", "dice/0", "dice/1", "info/without_masks"}
    assert set(result.figures) == {f"{label}/{name}" for label in evaluate for name in names}
    assert result.figures["dense-linear/miou"] > 0.6  # brightness is seen by any features
    line = next(line for line in capsys.readouterr().err.splitlines() if "dense-knn/miou" in line)
    assert "dense-linear/info/without_masks 0.0000" in line and "iou/1" not in line
    assert "dense-knn/iou/1" in rows(result.folder / "evaluations.jsonl")[0]
    assert (result.folder / "checkpoints" / "best").is_dir()


def test_sets_without_masks_are_refused(toy, sets, tmp_path):
    bare = {key: value for key, value in sets["query"].items() if key != "mask"}
    with pytest.raises(ConfigError) as caught:
        api.plan(toy(evaluate={"dense-knn": {"bank": {"name": "digits"}, "query": bare}}))
    assert str(caught.value) == "\n".join(
        f"config: evaluate.dense-knn.{name}: comes without masks; give its manifest a column of masks (`mask`), or wrap it in `marked`"
        for name in ("bank", "query")
    )
    (tmp_path / "boxes.csv").write_text("image,left,top,width,height\n0.png,1,2,3,4\n")
    boxed = {"name": "marked", "images": bare, "boxes": str(tmp_path / "boxes.csv")}
    mixed = {"name": "mix", "sources": {"some": boxed}}
    with pytest.raises(ConfigError) as caught:
        api.plan(toy(evaluate={"dense-knn": {"bank": mixed, "query": boxed}}))
    assert str(caught.value) == "\n".join(
        f"config: evaluate.dense-knn.{name}: comes with boxes alone, and patches are judged by masks; give `masks`, too"
        for name in ("bank", "query")
    )
    with pytest.raises(ConfigError) as caught:
        api.plan(toy(evaluate={"dense-linear": {"bank": sets["bank"], "query": sets["bank"]}}))
    assert str(caught.value) == (
        "config: evaluate.dense-linear.query: is the bank itself: every image would find itself; name held-out images"
    )


def test_masks_with_nothing_known_are_told(tmp_path, sets):
    for file in (tmp_path / "query").glob("*-mask.png"):
        Image.fromarray(np.full((SIDE, SIDE), 255, np.uint8)).save(file)
    with pytest.raises(DataError) as caught:
        construct(in_table("evaluator", {"name": "dense-knn", **sets})).evaluate(encoder_of(means))
    assert (
        str(caught.value)
        == "no pixel of the query is of a known class: its masks hold nothing but the number to ignore"
    )
    swapped = {"bank": sets["query"], "query": sets["bank"]}
    with pytest.raises(DataError) as caught:
        construct(in_table("evaluator", {"name": "dense-knn", **swapped})).evaluate(encoder_of(means))
    assert (
        str(caught.value) == "no patch of the bank is of a known class: its masks hold nothing but the number to ignore"
    )
