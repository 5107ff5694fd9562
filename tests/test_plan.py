"""Derived numbers and cross-field refusals."""

import json
import os
import subprocess
import sys

import pytest

from dinomx_core import ConfigError, api
from dinomx_core.planning.show import lines


def refusals(config):
    with pytest.raises(ConfigError) as caught:
        api.plan(config)
    return [problem.split(": ", 1)[1] for problem in str(caught.value).splitlines()]


def test_batch_arithmetic_and_scaled_lr(toy):
    made = api.plan(
        toy(
            run={"steps": "2 passes", "batch_size": 64, "accumulation": 4},
            optimizer={"lr": 1e-3, "scaling": "sqrt", "scaling_batch": 1024},
        )
    )
    assert (made.batch.images, made.batch.world_size, made.batch.accumulation, made.batch.micro) == (64, 1, 4, 16)
    assert made.steps == 45  # 2 x 1438 / 64
    assert made.passes == pytest.approx(2, abs=0.01)
    assert made.curves["optimizer.lr"].peak == pytest.approx(1e-3 / 4)
    assert any("micro-batches of 16 images" in warning for warning in made.warnings)


def test_tokens_parameters_and_flops_equal_the_built_model(toy):
    from dinomx_core.training.build import build

    made = api.plan(toy())
    assert {view.name: made.backbone.tokens(view.size) for view in made.views} == {"global": 17, "local": 5}
    parts = build(made)
    assert made.backbone.parameters == sum(p.numel() for p in parts.student.backbone.parameters())
    assert made.heads["dino"].parameters == sum(p.numel() for p in parts.student.heads.parameters())


def test_forward_flops_are_those_that_torch_counts(toy):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from dinomx_core.training.build import build

    made = api.plan(toy())
    backbone = build(made).student.backbone
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone(torch.zeros(1, 1, 16, 16))
    assert made.backbone.forward_flops(16) == pytest.approx(counter.get_total_flops())


def test_schedule_end_points_and_everything_else_is_json(toy):
    told = json.loads(json.dumps(api.plan(toy(optimizer={"lr": {"peak": 1.0, "end": 0.1, "warmup": "50%"}})).to_json()))
    assert told["schedules"]["optimizer.lr"]["first"] == 0.0
    assert told["schedules"]["optimizer.lr"]["warmup"] == 2
    assert told["tokens"] == {"global": 17, "local": 5}
    assert told["values"]["optimizer.eps"] == {"value": 1e-8, "source": "default"}
    assert told["cost"]["flops"] > 0


def test_the_text_names_every_value(toy):
    made = api.plan(toy())
    text = "\n".join(lines(made))
    for value in made.values:
        assert value.key in text
    assert "compute" in text and "parameters" in text


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"augmentation": {"locals": {"size": 10}}}, "augmentation.locals.size: local crops of 10 px are not a multiple of the patch (4 px); use 8 or 12"),
        ({"augmentation": {"globals": {"size": 3}, "locals": None}, "loss": {"dino": {"local_view": ""}}}, "augmentation.globals.size: global crops of 3 px are not a multiple of the patch (4 px); use 4"),
        ({"augmentation": {"locals": None}}, 'loss.dino: needs the view "local", which the augmentation does not make (it makes: global)'),
        ({"augmentation": {"globals": {"count": 1}, "locals": None}, "loss": {"dino": {"local_view": ""}}}, 'loss.dino: compares different crops of an image, and there is only one; make two "global" crops or local ones'),
        ({"optimizer": {"lr": {"peak": 1.0, "warmup": 9}}}, 'optimizer.lr.warmup: its warm-up is 9 steps, longer than the run of 4; a share such as "10%" always fits'),
        ({"optimizer": {"lr": {"peak": 1.0, "warmup": "1 passes"}}}, 'optimizer.lr.warmup: 1 passes is 180 steps, longer than the run of 4; a share such as "10%" always fits'),
        ({"augmentation": {"locals": {"count": 0}}}, 'loss.dino.local_view: no crops are called "local"; make some, or set local_view = ""'),
        ({"loss": {"dino": {"local_view": "global"}}}, "loss.dino.local_view: is the global view; a crop would be compared with itself"),
        ({"strategy": {"again": {"name": "ema"}}}, "strategy.again: supplies the teacher; it belongs into the table [teacher]"),
        ({"augmentation": {"resize": 8}}, "augmentation.resize: 8 is smaller than the centre crop of 16"),
        ({"backbone": {"mlp_ratio": 0.001}}, "backbone.mlp_ratio: 0.001 leaves the MLP no hidden feature"),
        ({"run": {"out": "~nosuchuser/x", "batch_size": 9, "accumulation": 2}}, "run.batch_size: 9 does not divide over 1 processes x 2 accumulated micro-batches; use 8"),
        ({"run": {"batch_size": 2000}}, "run.batch_size: 2000 is more than the 1438 images there are"),
        ({"run": {"batch_size": 9, "accumulation": 2}}, "run.batch_size: 9 does not divide over 1 processes x 2 accumulated micro-batches; use 8"),
        ({"run": {"steps": "0.001 passes"}}, 'run.steps: "0.001 passes" is less than one step'),
        ({"backbone": {"heads": 3}}, "backbone.heads: width 16 does not divide over 3 heads"),
        ({"augmentation": {"mean": [0.1, 0.2, 0.3]}}, "augmentation.mean: has 3 values, the images 1 channels; give 1"),
        ({"augmentation": {"globals": {"blur": [0.1, 0.2, 0.3]}}}, "augmentation.globals: blur has 3 probabilities for 2 crops; give 1 or 2"),
        ({"augmentation": {"globals": {"area": [0.5, 0.1]}}}, "augmentation.globals.area: must be [smallest, largest] with 0 < smallest <= largest <= 1, got [0.5, 0.1]"),
        ({"data": {"name": "image-folder", "path": "/nowhere/at/all", "split": None}}, f'data.path: there is no folder "/nowhere/at/all" (looked in {os.getcwd()})'),
        ({"evaluate": {"knn": {"bank": {"name": "digits"}}}}, "evaluate.knn.query: missing"),
        ({"evaluate": {"knn": {"bank": {"name": "digits"}, "query": {"name": "digits", "split": "test"}, "k": [3000]}}}, "evaluate.knn.k: the bank's 1797 images are fewer than k = 3000"),
    ],
)  # fmt: skip
def test_refusals(toy, change, expected):
    assert expected in refusals(toy(**change))


def test_the_bank_cannot_be_its_own_query(toy):
    same = {"name": "digits", "split": "test"}
    found = refusals(toy(evaluate={"knn": {"bank": same, "query": same, "k": [2]}}))
    assert found == ["evaluate.knn.query: is the bank itself: every image would find itself; name held-out images"]


def test_channels_of_evaluation_data_must_fit(toy, image_folder):
    data = {"name": "image-folder", "path": str(image_folder)}
    query = {**data, "path": str(image_folder / "cats")}
    found = refusals(toy(evaluate={"knn": {"bank": data, "query": query, "k": [2]}}))
    assert found[:2] == [f"evaluate.knn.{part}: has 3 channels, the training data 1" for part in ("query", "bank")]


def test_a_flat_folder_has_no_labels_for_knn(toy, image_folder):
    data = {"name": "image-folder", "path": str(image_folder / "cats"), "channels": 1}
    found = refusals(toy(evaluate={"knn": {"bank": data, "query": data, "k": [2]}}))
    assert "evaluate.knn.query: has no labels; k-NN needs a folder a class" in found


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder that nobody can write to")
def test_unwritable_output(toy):
    assert refusals(toy(run={"out": "/proc/runs"})) == [
        "run.out: /proc cannot be written to; choose another with run.out or --out"
    ]


def test_output_below_a_file(toy, tmp_path):
    (tmp_path / "file").write_text("")
    assert refusals(toy(run={"out": str(tmp_path / "file")})) == [
        f"run.out: {tmp_path}/file is a file, not a folder; choose another"
    ]


def test_planning_and_help_import_no_torch(tmp_path):
    code = """
import sys
from dinomx_core import api
from dinomx_core.cli import app
api.plan("examples/quickstart.toml", out=sys.argv[1])
heavy = {"torch", "transformers", "sklearn", "numpy", "PIL", "monai"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
