"""Whole runs of a toy model."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

import dinomx_core
from dinomx_core import ConfigError, DataError, TrainingError, api
from dinomx_core.training.build import build
from dinomx_core.training.data import MicroBatches, collate, make_loader
from dinomx_core.training.evaluation import preprocess
from dinomx_core.training.loop import make_images
from tests.fixtures import KNN, TIMINGS, rows, steps

OFTEN = {"knn": {**KNN["knn"], "every": 2}}


def history(folder):
    return [{k: v for k, v in row.items() if k not in TIMINGS} for row in rows(folder / "metrics.jsonl")]


def final(folder, part="student"):
    step = max(int(p.name) for p in (folder / "checkpoints").iterdir())
    return load_file(folder / "checkpoints" / str(step) / f"{part}.safetensors")


def test_a_run_leaves_what_the_design_says(toy):
    result = api.run(toy(evaluate=OFTEN))
    assert {p.name for p in result.folder.iterdir()} == {
        "config.toml", "plan.json", "metrics.jsonl", "evaluations.jsonl", "checkpoints", "export", "report.html", "pictures",
    }  # fmt: skip
    metrics = rows(result.folder / "metrics.jsonl")
    assert [row["step"] for row in metrics] == [0, 1, 2, 3]
    for row in metrics:
        assert {"loss", "loss/dino", "lr", "gradient_norm", *TIMINGS} <= set(row)
        assert row["loss"] == pytest.approx(row["loss/dino"])
        assert row["images_per_second"] == pytest.approx(8 / row["seconds"])
        assert row["seconds"] > row["data_seconds"] > 0
    assert [row["step"] for row in rows(result.folder / "evaluations.jsonl")] == [0, 2, 4]
    assert json.loads((result.folder / "plan.json").read_text())["steps"] == 4
    assert 0 < result.figures["knn/accuracy@5"] <= 1
    assert set(final(result.folder)) == {*final(result.folder, "teacher")}
    assert "dino.target.center" in final(result.folder, "losses")


def test_the_config_is_kept_verbatim(toy, tmp_path):
    text = "# mine\n" + api.to_toml(toy())
    (tmp_path / "c.toml").write_text(text)
    result = api.run(tmp_path / "c.toml")
    assert (result.folder / "config.toml").read_text() == text
    assert result.folder.name == "c"


def test_tables_from_python_are_kept_with_their_recipe(toy):
    config = {"recipe": "dinov1-small", **toy(run={"name": "x"}, backbone={"name": None}, loss=None, teacher=None)}
    plan = api.plan(config)
    assert plan.source.text.startswith('"recipe" = "dinov1-small"\n') and config["recipe"] == "dinov1-small"
    again = api.plans_of(plan.source)[0]  # as other processes read it
    assert [(v.key, v.value) for v in again.values] == [(v.key, v.value) for v in plan.values]


def test_the_export_opens_with_transformers_and_gives_the_teachers_features(toy):
    result = api.run(toy())
    the_plan = api.plan(toy(run={"name": "again"}))
    parts = build(the_plan)
    parts.teacher.network.load_state_dict(final(result.folder, "teacher"))
    item = parts.data[3]
    pixels = preprocess(item, the_plan.preprocessing)[None]
    with torch.no_grad():
        ours = parts.teacher.network.backbone(pixels)
        theirs = AutoModel.from_pretrained(result.export, add_pooling_layer=False)(pixels).last_hidden_state
        loaded = api.load(result.folder)([item.image])
    assert torch.equal(ours.cls, loaded.cls) and torch.equal(ours.patches, loaded.patches)
    torch.testing.assert_close(torch.cat([ours.cls[:, None], ours.patches], 1), theirs, rtol=1e-6, atol=1e-6)
    assert api.load(result.export).channels == 1


def test_load_reads_files_arrays_and_tensors_alike(toy, image_folder):
    data = {"name": "image-folder", "path": str(image_folder), "split": None}
    result = api.run(toy(data=data, augmentation={"mean": [0.5], "std": [0.25]}))
    model = api.load(result.folder)
    file = image_folder / "cats" / "0.png"
    from PIL import Image

    array = np.array(Image.open(file))
    features = [
        model([x]).cls for x in (file, str(file), Image.open(file), array, torch.from_numpy(array).permute(2, 0, 1))
    ]
    assert all(torch.equal(f, features[0]) for f in features)
    with pytest.raises(DataError, match="neither a run, nor a checkpoint, nor an export"):
        api.load(image_folder)


@pytest.mark.slow
def test_the_same_config_gives_the_same_run_whatever_the_number_of_workers(toy):
    runs = [api.run(toy(run={"name": f"w{n}"}, loader={"workers": n})).folder for n in (0, 1, 2)]
    assert history(runs[0]) == history(runs[1]) == history(runs[2])
    first, *others = (final(run) for run in runs)
    assert all(torch.equal(first[name], other[name]) for other in others for name in first)


def test_another_seed_gives_another_run(toy):
    assert history(api.run(toy()).folder) != history(api.run(toy(run={"seed": 1, "name": "other"})).folder)


@pytest.mark.slow
def test_evaluation_leaves_the_run_as_it_was(toy):
    with_it = api.run(toy(evaluate=OFTEN)).folder
    without = api.run(toy(run={"name": "plain"})).folder
    assert history(with_it) == history(without)


@pytest.mark.slow
def test_accumulation_computes_the_same_step(toy):
    whole = api.run(toy(backbone={"drop_path": 0.0})).folder
    parts = api.run(toy(run={"name": "parts", "accumulation": 4}, backbone={"drop_path": 0.0})).folder
    losses = [[row["loss"] for row in history(run)] for run in (whole, parts)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.parametrize(
    ("what", "every", "calls"),
    [("mlp", 1, [4, 4]), ("mlp", 2, [2, 4]), ("blocks", 2, [2, 4])],
)
def test_recomputing_computes_the_same(toy, what, every, calls):
    def losses(**run):
        parts = build(api.plan(toy(run=run)))
        counts = [0, 0]
        for number, block in enumerate(parts.student.backbone.blocks):
            block.mlp.fc1.register_forward_hook(lambda *_, n=number: counts.__setitem__(n, counts[n] + 1))
        return [row["loss"] for row in steps(parts, 1)], counts

    plain, once = losses()
    again, twice = losses(recompute=what, recompute_every=every)
    assert again == plain
    assert once == [2, 2]  # the views "global" and "local"
    assert twice == calls


def test_bf16_trains_close_to_float32(toy):
    wide = api.run(toy()).folder
    narrow = api.run(toy(run={"name": "bf16", "precision": "bf16"})).folder
    assert [row["loss"] for row in history(narrow)] == pytest.approx([row["loss"] for row in history(wide)], rel=2e-2)
    assert {tensor.dtype for tensor in final(narrow).values()} == {torch.float32}


@pytest.mark.slow
def test_fp16_leaves_out_steps_that_overflow_and_then_trains(toy):
    narrow = api.run(toy(run={"name": "fp16", "precision": "fp16", "steps": 24})).folder
    done = history(narrow)
    overflowed = [row["gradient_norm"] is None for row in done]
    assert not any(overflowed[-4:])
    before, after = build(api.plan(toy())).student.state_dict(), final(narrow)
    assert any(not torch.equal(before[name], after[name]) for name in after)
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}


def test_a_loss_that_is_not_finite_stops_the_run_by_name(toy):
    with pytest.raises(TrainingError) as caught:
        api.run(toy(run={"steps": 20}, optimizer={"lr": 1e30}))
    assert "is not finite" in str(caught.value) and "lower optimizer.lr" in str(caught.value)
    assert caught.value.exit_code == 3


def test_a_used_run_folder_is_refused_and_overwritten_only_on_request(toy, tmp_path):
    first = api.run(toy()).folder
    with pytest.raises(
        ConfigError,
        match="holds a run already; go on with it by --resume, start anew with --overwrite, or choose another run.name or --out",
    ):
        api.run(toy())
    assert len(rows(first / "metrics.jsonl")) == 4
    api.run(toy(run={"steps": 2}), overwrite=True)
    assert len(rows(first / "metrics.jsonl")) == 2
    (tmp_path / "runs" / "photos").mkdir()
    (tmp_path / "runs" / "photos" / "x.png").write_text("")
    with pytest.raises(ConfigError, match="holds other files"):
        api.run(toy(run={"name": "photos"}), overwrite=True)


def test_every_image_is_seen_once_a_pass(toy):
    the_plan = api.plan(toy(run={"steps": "1 passes"}, data={"split": "test"}))
    parts = build(the_plan)
    images = make_images(parts)
    batches = MicroBatches(the_plan.batch, 0, 0, the_plan.steps)
    seen = [int(i) for views in make_loader(images, batches, the_plan.spec.loader, False) for i in views.index][:359]
    assert sorted(seen) == list(range(359)) and seen != list(range(359))
    order = [images.positions.index(position) for position in range(359, 718)]
    assert sorted(order) == list(range(359)) and order != seen


def test_batches_are_view_major_and_say_where_crops_came_from(toy):
    the_plan = api.plan(toy())
    parts = build(the_plan)
    images = make_images(parts)
    views = collate([images[p] for p in range(8)])
    assert views.pixels["global"].shape == (2, 8, 1, 16, 16) and views.pixels["local"].shape == (2, 8, 1, 8, 8)
    assert views.boxes["local"].shape == (2, 8, 4)
    assert torch.equal(views.pixels["global"][1, 3], images[3][0]["global"][1].pixels)
    assert views.labels.tolist() == [parts.data[int(i)].label for i in views.index][:359]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_image_is_named_without_a_traceback(toy, image_folder, workers):
    (image_folder / "cats" / "3.png").write_bytes(b"\x89PNG broken")
    config = toy(
        data={"name": "image-folder", "path": str(image_folder), "split": None},
        augmentation={"mean": [0.5], "std": [0.3]},
        loader={"workers": workers},
    )
    with pytest.raises(DataError) as caught:
        api.run(config)
    assert str(caught.value).startswith(
        "1 of 12 images cannot be read, more than loader.max_unreadable = 0.01 allows: "
        f"{image_folder}/cats/3.png: cannot be read as an image"
    ) and "Traceback" not in str(caught.value)


@pytest.mark.slow
def test_a_run_that_cannot_be_built_deletes_nothing_and_leaves_no_trace(toy, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    kept = api.run(toy()).folder
    for name in ("run", "new"):
        with pytest.raises(ConfigError, match='cannot use "cuda" here; set run.device = "cpu"'):
            api.run(toy(run={"device": "cuda", "name": name}), overwrite=True)
    assert len(rows(kept / "metrics.jsonl")) == 4
    assert not (tmp_path / "runs" / "new").exists()


@pytest.mark.slow
def test_crops_need_not_be_square(toy, image_folder):
    config = toy(
        data={"name": "image-folder", "path": str(image_folder), "split": None, "channels": 1},
        augmentation={"globals": {"size": [16, 24]}, "locals": {"size": [8, 12]}},
    )
    plan = api.plan(config)
    assert [(str(view.size), plan.backbone.tokens(view.size)) for view in plan.views] == [
        ("16 x 24", 25),
        ("8 x 12", 7),
    ]
    views = collate([make_images(build(plan))[position] for position in range(2)])
    assert (views.pixels["global"].shape[-2:], views.pixels["local"].shape[-2:]) == ((16, 24), (8, 12))
    folder = api.run(plan).folder
    model = dinomx_core.load(folder)
    assert model([np.zeros((30, 40), np.uint8), np.zeros((40, 30), np.uint8)]).grid == (1, 4, 6)
    processor = json.loads((folder / "export" / "preprocessor_config.json").read_text())
    assert processor["crop_size"] == {"height": 16, "width": 24} and model.preprocessing == plan.preprocessing


@pytest.mark.parametrize("size", [0, [16], [16, -4], 16.5, "16"])
def test_sizes_are_pixels_or_height_and_width(toy, size):
    with pytest.raises(
        ConfigError, match=r"augmentation.globals.size: expected pixels above 0 \(64\) or \[height, width\]"
    ):
        api.plan(toy(augmentation={"globals": {"size": size}}))
