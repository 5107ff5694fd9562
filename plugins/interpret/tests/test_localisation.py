"""Localisation: measures on maps with known answers, boxes of planted objects, whole evaluations."""

import numpy as np
import pytest
import torch
from PIL import Image

from dinomx_core import ConfigError, DataError, Preprocessing, api
from dinomx_core.training.construct import construct
from dinomx_core.training.contracts import Encoder
from dinomx_core.training.regions import seen_boxes
from dinomx_interpret import finding
from dinomx_interpret.localising import iou, mass_ratio, objects, overlap, points
from tests.fixtures import in_table

GRID, SIDE = (6, 9), 8  # patches, and pixels of one


def pixels(patches):
    """A map of patches as one of pixels."""
    return patches.repeat_interleave(SIDE, 0).repeat_interleave(SIDE, 1)


def patches(rows, columns):
    """(h, w) bool: a block of patches."""
    found = torch.zeros(GRID, dtype=torch.bool)
    found[rows, columns] = True
    return found


THING = patches(slice(1, 3), slice(5, 8))
EVERYWHERE = torch.ones(GRID[0] * SIDE, GRID[1] * SIDE, dtype=torch.bool)


def test_an_even_map_is_chance_and_one_on_the_object_is_its_inverse_share():
    share = float(THING.float().mean())
    assert mass_ratio(torch.full(GRID, 0.3), pixels(THING), EVERYWHERE) == pytest.approx(1.0)
    assert mass_ratio(THING.float(), pixels(THING), EVERYWHERE) == pytest.approx(1 / share)
    assert mass_ratio((~THING).float(), pixels(THING), EVERYWHERE) == 0.0
    half = THING.float() / THING.sum() + (~THING).float() / (~THING).sum()
    assert mass_ratio(half, pixels(THING), EVERYWHERE) == pytest.approx(0.5 / share)


def test_pixels_that_nobody_judges_do_not_count():
    judged = pixels(patches(slice(0, 6), slice(4, 9)))
    map = torch.ones(GRID)
    map[:, :4] = 100.0
    assert mass_ratio(map, pixels(THING), judged) == pytest.approx(1.0)


def test_the_brightest_pixel_points():
    map = torch.zeros(GRID)
    map[1, 5] = 1.0
    assert points(map, pixels(THING), EVERYWHERE) == 1.0
    map[4, 0] = 2.0
    assert points(map, pixels(THING), EVERYWHERE) == 0.0
    assert points(map, pixels(THING), pixels(patches(slice(0, 4), slice(0, 9)))) == 1.0


def test_the_brightest_patches_hold_the_mass_and_no_more():
    map = torch.tensor([[0.4, 0.3, 0.2, 0.1]])
    assert finding.brightest(map, 0.6).tolist() == [[True, True, False, False]]
    assert finding.brightest(map, 0.75).tolist() == [[True, True, True, False]]
    assert finding.brightest(map, 0.39).tolist() == [[True, False, False, False]]
    assert iou(THING, pixels(THING), EVERYWHERE) == 1.0
    assert iou(patches(slice(1, 3), slice(5, 9)), pixels(THING), EVERYWHERE) == pytest.approx(6 / 8)
    assert iou(patches(slice(4, 6), slice(0, 2)), pixels(THING), EVERYWHERE) == 0.0


def test_boxes_around_connected_parts():
    mask = torch.zeros(10, 12, dtype=torch.int64)
    mask[1:3, 2:5], mask[6:9, 7:8], mask[6:9, 8:10] = 1, 2, 1
    mask[0, 0] = 255
    assert sorted(objects(mask, 255)) == [(1, 2, 2, 3), (6, 7, 3, 1), (6, 8, 3, 2)]
    assert overlap((0, 0, 4, 4), (2, 2, 4, 4)) == pytest.approx(4 / 28)
    assert overlap((0, 0, 4, 4), (4, 4, 2, 2)) == 0.0
    assert overlap((1, 2, 3, 4), (1, 2, 3, 4)) == 1.0


def planted(noise, seed):
    """Keys (h, w, D) of a background and of one object, which point elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    keys = torch.zeros(*GRID, 16)
    keys[..., 0] = torch.where(THING, -0.5, 1.0)
    keys[..., 1] = THING.float()
    return keys + noise * torch.randn(keys.shape, generator=generator)


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_object_is_found_by_its_keys(seed):
    for way in (finding.lost, finding.tokencut):
        assert overlap(finding.box_of(way(planted(0.1, seed))), (1, 5, 2, 3)) == 1.0


def test_keys_that_say_nothing_give_a_box_all_the_same():
    for keys in (torch.ones(*GRID, 4), torch.zeros(*GRID, 4), torch.ones(1, 1, 4), torch.ones(1, 2, 4)):
        for way in (finding.lost, finding.tokencut):
            top, left, height, width = finding.box_of(way(keys))
            assert height >= 1
            assert width >= 1
            assert top + height <= keys.shape[0]
            assert left + width <= keys.shape[1]


def test_attention_gives_the_box_of_its_brightest_part():
    map = torch.full(GRID, 0.01)
    map[THING] = 1.0
    map[5, 0] = 0.9
    assert finding.box_of(finding.from_attention(map, 0.8)) == (1, 5, 2, 3)


@pytest.fixture
def scenes(tmp_path):
    """A manifest of six grey images with a bright square each, and its mask; another without any object."""
    rng = np.random.default_rng(0)
    lines = ["path,mask"]
    for number in range(6):
        image, mask = rng.integers(0, 60, (32, 32), dtype=np.uint8), np.zeros((32, 32), np.uint8)
        top, left = rng.integers(0, 20, 2)
        image[top : top + 10, left : left + 10] += 180
        mask[top : top + 10, left : left + 10] = 0 if number == 5 else 1
        Image.fromarray(image).save(tmp_path / f"i{number}.png")
        Image.fromarray(mask).save(tmp_path / f"m{number}.png")
        lines.append(f"i{number}.png,m{number}.png")
    lines.append("i0.png,")
    (tmp_path / "scenes.csv").write_text("\n".join(lines))
    return {"name": "manifest", "path": str(tmp_path / "scenes.csv"), "mask": "mask", "channels": 1}


def encoder(monkeypatch, attention):
    """An encoder whose maps (B, H, h, w) are `attention` of the images' mean brightness of patches of 4 px."""
    from dinomx_core.builtin.single import SingleProcess
    from dinomx_core.training.flow import Tokens

    how = Preprocessing(32, (32, 32), (0.0,), (1.0,))

    def maps(encoder, items):
        from dinomx_core.training.evaluation import preprocess

        light = torch.stack([preprocess(item, how)[0] for item in items]).unfold(1, 4, 4).unfold(2, 4, 4).mean((3, 4))
        found = light.flatten(1)[..., None]
        keys = torch.stack([light, 1 - light], -1)
        return Tokens(found[:, 0], torch.empty(len(found), 0, 1), found, (1, *light.shape[1:])), attention(light), keys

    monkeypatch.setattr("dinomx_interpret.localising.head_maps", maps)
    told = []
    made = Encoder(
        None,
        how,
        3,
        SingleProcess(None, torch.device("cpu")),
        lambda item: item,
        None,
        lambda faults, count: told.append((faults, count)),
    )
    return made, told


def evaluator(scenes, **options):
    return construct(in_table("evaluator", {"name": "localisation", "every": 1, "images": scenes, **options}))


def test_a_model_that_looks_at_what_is_bright_scores_full_marks(monkeypatch, scenes):
    seeing, told = encoder(monkeypatch, lambda light: (light**4)[:, None])
    found = evaluator(scenes, boxes=["attention"]).evaluate(seeing)
    assert (found["pointing"], found["info/images"]) == (1.0, 5.0)
    assert found["mass_ratio"] > 6
    assert found["iou"] > 0.4
    assert told == [([], 7)]
    blind, _ = encoder(monkeypatch, lambda light: torch.ones_like(light)[:, None])
    assert evaluator(scenes, boxes=[]).evaluate(blind)["mass_ratio"] == pytest.approx(1.0, abs=1e-6)


def test_a_head_is_fixed_or_chosen_on_other_images(monkeypatch, scenes, tmp_path):
    two, _ = encoder(monkeypatch, lambda light: torch.stack([light.max() - light, light], 1) ** 4)
    assert evaluator(scenes, head=0).evaluate(two)["pointing"] == 0.0
    assert evaluator(scenes, head=1).evaluate(two)["pointing"] == 1.0
    lines = (tmp_path / "scenes.csv").read_text().splitlines()
    (tmp_path / "others.csv").write_text("\n".join(lines[:3]))
    others = {**scenes, "path": str(tmp_path / "others.csv")}
    assert evaluator(scenes, head="chosen", validation=others).evaluate(two)["pointing"] == 1.0
    with pytest.raises(DataError, match="the model has 2 attention heads, numbered from 0; there is no head 2"):
        evaluator(scenes, head=2).evaluate(two)


def test_masks_that_do_not_fit_are_left_out_and_told(monkeypatch, scenes, tmp_path):
    Image.fromarray(np.ones((9, 9), np.uint8)).save(tmp_path / "m0.png")
    seeing, told = encoder(monkeypatch, lambda light: light[:, None])
    assert evaluator(scenes).evaluate(seeing)["info/images"] == 4.0
    assert told == [(["i0.png: its mask has 9 x 9 pixels, the image 32 x 32; give masks of the image's size"], 7)]


def test_masks_of_0_and_255_need_no_number_to_ignore(monkeypatch, scenes, tmp_path):
    seeing, _ = encoder(monkeypatch, lambda light: light[:, None])
    others = {**scenes, "path": str(tmp_path / "others.csv")}
    (tmp_path / "others.csv").write_text("path,mask\ni5.png,m5.png\ni4.png,")
    with pytest.raises(DataError) as caught:
        evaluator(others).evaluate(seeing)
    assert str(caught.value) == "none of 2 images shows an object; give masks or boxes that name some"
    for file in tmp_path.glob("m*.png"):
        Image.fromarray(np.array(Image.open(file)) * np.uint8(255)).save(file)
    why = "shows an object: their masks hold 0 and 255, and ignore = 255; set ignore = -1 if 255 is an object"
    with pytest.raises(DataError) as caught:
        evaluator(scenes, batch_size=2).evaluate(seeing)
    assert str(caught.value) == f"none of 7 images {why}"
    (tmp_path / "others.csv").write_text("path,mask\ni1.png,m1.png")
    with pytest.raises(DataError) as caught:
        evaluator(scenes, head="chosen", validation=others).evaluate(seeing)
    assert str(caught.value) == f"none of the validation's 1 images {why}"
    assert evaluator(scenes, ignore=-1, batch_size=2).evaluate(seeing)["info/images"] == 5.0


def test_a_run_measures_it(toy, scenes):
    config = toy(run={"steps": 1}, evaluate={"localisation": {"images": scenes}})
    figures = api.run(config).figures
    assert {name.partition("/")[2] for name in figures if name.startswith("localisation")} == {
        "pointing", "mass_ratio", "iou", "corloc_attention", "corloc_lost", "corloc_tokencut", "info/images",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"images": {"name": "digits", "split": "test"}},
            "evaluate.localisation.images: has no masks or boxes; give a manifest with a column",
        ),
        (
            {"head": "chosen"},
            'evaluate.localisation.validation: head = "chosen" needs images that choose; give them as `images` are given, or fix the head: '
            '"mean" or a number',
        ),
        ({"head": "best"}, "evaluate.localisation.head: "),
        ({"head": -1}, "evaluate.localisation.head: is -1; heads are numbered from 0"),
        ({"head": 2}, "evaluate.localisation.head: the backbone has 2 heads, numbered from 0; there is no head 2"),
        ({"mass": 1.0}, "evaluate.localisation.mass: must be above 0 and below 1, got 1.0"),
    ],
)
def test_what_is_refused(toy, scenes, change, message):
    with pytest.raises(ConfigError) as caught:
        api.plan(toy(evaluate={"localisation": {"images": scenes, **change}}))
    assert message in str(caught.value)


def test_a_backbone_without_attentions_is_refused(toy, scenes):
    backbone = {"name": "dinov3-convnext", **dict.fromkeys(("width", "depth", "heads", "patch_size", "drop_path"))}
    config = toy(backbone=backbone, evaluate={"localisation": {"images": scenes}})
    config["augmentation"]["globals"]["size"], config["augmentation"]["locals"]["size"] = 32, 32
    with pytest.raises(
        ConfigError, match=r"evaluate.localisation: the backbone has no attention to judge; take a transformer"
    ):
        api.plan(config)


def test_boxes_that_touch_stay_objects_of_their_own(monkeypatch, scenes, tmp_path):
    marks = [f"i{number}.png,{left},8,8,16,cell" for number in range(2) for left in (8, 16)]
    (tmp_path / "boxes.csv").write_text("\n".join(["image,left,top,width,height,class", *marks]))
    plain = {key: value for key, value in scenes.items() if key != "mask"}
    marked = {"name": "marked", "images": plain, "boxes": str(tmp_path / "boxes.csv")}
    left_one = torch.zeros(8, 8)
    left_one[2:6, 2:4] = 1.0  # patches of 4 pixels
    seeing, _ = encoder(monkeypatch, lambda light: left_one.expand(len(light), 1, 8, 8))
    found = evaluator(marked, boxes=["attention"], mass=0.999).evaluate(seeing)
    assert (found["corloc_attention"], found["info/images"]) == (1.0, 3.0)


def test_boxes_as_an_evaluation_sees_them():
    how = Preprocessing(32, (32, 32), (0.0,), (1.0,))  # 64 x 128 -> 32 x 64, of which the middle is seen
    boxes = torch.tensor([[0, 0, 64, 128], [10, 40, 20, 30], [0, 0, 8, 20], [63, 127, 1, 1], [31, 64, 1, 1]])
    assert seen_boxes(boxes, 64, 128, how).tolist() == [[0, 0, 32, 32], [5, 4, 10, 15], [16, 16, 1, 1]]
