"""`dinomx eval`: figures of models that are there."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from dinomx_core import ConfigError, DataError, api
from dinomx_core.cli import app
from tests.fixtures import rows

DIGITS = {"bank": {"name": "digits", "split": "train"}, "query": {"name": "digits", "split": "test"}}
KNN = {"k": [5], **DIGITS}
EVALUATE = {"evaluate": {"knn": KNN, "rankme": {"data": DIGITS["query"]}}}
TEXT = """
[evaluate.knn]
k = [5]
bank = { name = "digits", split = "train" }
query = { name = "digits", split = "test" }
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run with three checkpoints and a best one."""
    from tests.fixtures import TOY

    root = tmp_path_factory.mktemp("done")
    config = {
        **TOY, **EVALUATE, "checkpoint": {"every": 2, "keep_last": 3, "keep_best": "knn/accuracy@5"},
        "run": {**TOY["run"], "steps": 6, "out": str(root), "name": "run"},
    }  # fmt: skip
    return api.run(config)


def judged(row):
    return {name: value for name, value in row.items() if "/" in name and name != "model"}


def test_the_last_checkpoint_has_the_figures_of_the_runs_end_bit_for_bit(done):
    found = api.evaluate(done.folder, EVALUATE)
    assert judged(found["rows"][0]) == judged(rows(done.folder / "evaluations.jsonl")[-1])
    kept = rows(done.folder / "evaluations-after.jsonl")[-1]
    assert found["file"] == str(done.folder / "evaluations-after.jsonl") and kept == found["rows"][0]
    assert {name: kept[name] for name in ("model", "checkpoint", "step", "network", "config")} == {
        "model": str(done.folder), "checkpoint": "6", "step": 6, "network": "teacher", "config": "config",
    }  # fmt: skip
    assert len(kept["digest"]) == 16 and kept["seconds"] > 0


def test_every_checkpoint_has_the_figures_that_the_run_had_there(done):
    of = {row["step"]: judged(row) for row in rows(done.folder / "evaluations.jsonl")}
    for place, step in (("2", 2), ("best", None)):
        row = api.evaluate(done.folder, EVALUATE, checkpoint=place)["rows"][0]
        step = step or json.loads((done.folder / "checkpoints" / "best" / "manifest.json").read_text())["step"]
        assert (row["checkpoint"], row["step"], judged(row)) == (place, step, of[step])
    alone = api.evaluate(done.folder / "checkpoints" / "4", EVALUATE)
    assert judged(alone["rows"][0]) == of[4] and alone["file"] == str(done.folder / "evaluations-after.jsonl")


def test_an_export_has_them_too_and_a_student_others(done, tmp_path):
    last = judged(rows(done.folder / "evaluations.jsonl")[-1])
    out = tmp_path / "figures.jsonl"
    exported = api.evaluate(done.export, EVALUATE, out=out)
    assert judged(exported["rows"][0]) == last and exported["rows"][0]["step"] is None and len(rows(out)) == 1
    student = api.evaluate(done.folder, EVALUATE, network="student", out=out)["rows"][0]
    assert student["network"] == "student" and judged(student) != last and len(rows(out)) == 2


def test_a_config_is_measured_as_training_would_start_from_it(done, tmp_path):
    row = api.evaluate(done.folder / "config.toml", EVALUATE)["rows"][0]
    assert judged(row) == judged(rows(done.folder / "evaluations.jsonl")[0]) and row["checkpoint"] == ""


def test_a_runs_own_config_measures_it_and_other_tables_take_no_part(done):
    row = api.evaluate(done.folder, done.folder / "config.toml", overrides=["evaluate.knn.k=[3]"])["rows"][0]
    assert set(judged(row)) >= {"knn/accuracy@3", "rankme/rankme"} and "knn/accuracy@5" not in row


@pytest.mark.slow
def test_adapters_are_measured_as_they_were_trained(toy):
    config = toy(evaluate={"knn": KNN}, strategy={"lora": {"name": "lora"}}, checkpoint={"every": 2})
    result = api.run(config)
    row = api.evaluate(result.folder, {"evaluate": {"knn": KNN}})["rows"][0]
    assert judged(row) == judged(rows(result.folder / "evaluations.jsonl")[-1])


@pytest.mark.slow
def test_the_best_of_all_checkpoints_is_chosen_without_labels(done):
    found = api.evaluate(done.folder, EVALUATE, checkpoint="all")
    assert [row["checkpoint"] for row in found["rows"]][-3:] == ["2", "4", "6"]
    wanted = max(found["rows"], key=lambda row: row["rankme/rankme"])
    assert found["best"] == {
        "by": "rankme/rankme", "checkpoint": wanted["checkpoint"], "step": wanted["step"], "value": wanted["rankme/rankme"],
    }  # fmt: skip
    by = api.evaluate(done.folder, EVALUATE, checkpoint="all", by="knn/accuracy@5")["best"]
    assert by["value"] == max(row["knn/accuracy@5"] for row in found["rows"])


def test_a_checkpoint_that_is_not_whole_is_left_out_and_told(toy):
    result = api.run(toy(checkpoint={"every": 2, "keep_last": 3}))
    (result.folder / "checkpoints" / "2" / "teacher.safetensors").write_bytes(b"")
    told = []
    found = api.evaluate(result.folder, EVALUATE, checkpoint="all", note=told.append)
    assert [row["checkpoint"] for row in found["rows"]] == ["4"]
    assert len(told) == 1 and told[0].startswith(
        f"checkpoint {result.folder}/checkpoints/2 is left out: teacher.safetensors has 0 bytes"
    )
    with pytest.raises(
        DataError, match=r"checkpoints/2: teacher.safetensors has 0 bytes, not \d+; choose another checkpoint"
    ):
        api.evaluate(result.folder, EVALUATE, checkpoint="2")


def test_plain_weights_are_measured_with_the_preprocessing_of_their_folder(model_folder):
    folder = model_folder(image_size=32)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "size": {"shortest_edge": 40},
                "crop_size": {"height": 32, "width": 32},
                "image_mean": [0.5] * 3,
                "image_std": [0.25] * 3,
            }
        )
    )
    told = []
    config = {"evaluate": {"rankme": {"data": DIGITS["query"], "images": 40}}}
    one = api.evaluate(folder, config, note=told.append)
    assert told == [] and one["file"] is None and 1 < one["rows"][0]["rankme/rankme"] <= 32
    (folder / "preprocessor_config.json").unlink()
    other = api.evaluate(folder, config, note=told.append)
    assert told == [f"{folder} does not say how its pixels were normalised: ImageNet's mean and deviation are taken"]
    assert judged(one["rows"][0]) != judged(other["rows"][0])


def test_evaluating_leaves_threads_and_random_state_as_they_were(done):
    torch.manual_seed(3)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    numpy_state = np.random.get_state()[1].copy()
    api.evaluate(done.folder, {"evaluate": {"knn": KNN, "clustering": {"data": DIGITS["query"]}}})
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads
    assert np.array_equal(np.random.get_state()[1], numpy_state)


def invoke(*words):
    return CliRunner().invoke(app, ["eval", *map(str, words)])


def test_the_command_prints_a_table_or_json(done, tmp_path):
    (tmp_path / "eval.toml").write_text(TEXT + '[evaluate.rankme]\ndata = { name = "digits", split = "test" }\n')
    out = tmp_path / "out.jsonl"
    told = invoke(done.folder, tmp_path / "eval.toml", "--checkpoint", "all", "--out", out)
    lines = told.output.splitlines()
    assert told.exit_code == 0 and lines[0] == f"measured     teacher of {done.folder}"
    assert lines[1].split()[0] == "checkpoint" and lines[1].split()[-3:] == ["2", "4", "6"]
    assert [line.split()[0] for line in lines[2:]] == [
        "knn/accuracy@5", "knn/balanced_accuracy@5", "knn/auroc@5", "rankme/rankme", "rankme/info/dimension", "rankme/info/images", "best",
        "written",
    ]  # fmt: skip
    assert " by rankme/rankme: " in lines[-2] and lines[-1] == f"written      {out}"
    found = json.loads(
        invoke(done.folder, tmp_path / "eval.toml", "--set", "evaluate.knn.k=[3]", "--json", "--out", out).output
    )
    assert found["rows"][0]["config"] == str(tmp_path / "eval.toml") and "knn/accuracy@3" in found["rows"][0]


def refused(source, config, **options):
    with pytest.raises((ConfigError, DataError)) as caught:
        api.evaluate(source, config, **options)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_what_cannot_be_measured_is_refused_before_a_model_is_built(done, tmp_path, monkeypatch, model_folder):
    from dinomx_core.training import evaluating

    monkeypatch.setattr(evaluating, "opened", lambda *given: pytest.fail("a model was built"))
    file = tmp_path / "e.toml"
    file.write_text(TEXT + "[evaluate.rankme]\n[evaluate.knn.bnak]\n")
    assert refused(done.folder, file) == (
        f'{file}:7: evaluate.knn.bnak: unknown key; did you mean "bank"?\n{file}:6: evaluate.rankme.data: missing'
    )
    file.write_text("[intensity]\n[evalute.knn]\n")
    assert f"{file}:2: evalute: unknown key" in refused(done.folder, file)
    file.write_text("[intensity]\n")
    assert refused(done.folder, file).startswith(f"{file}: evaluate: no evaluation; add a table [evaluate.NAME] (")
    assert refused(done.folder, tmp_path / "none.toml") == f"{tmp_path}/none.toml: there is no such file"
    assert refused(done.folder, EVALUATE, checkpoint="7") == '--checkpoint: no checkpoint "7"; there are: 6, 4, 2, best'
    assert refused(done.folder, EVALUATE, network="third") == '--network: expected teacher or student, got "third"'
    best = done.folder / "checkpoints" / "best"
    assert (
        refused(done.folder, EVALUATE, checkpoint="best", network="student")
        == f"--network: {best} holds the teacher only"
    )
    assert refused(done.folder, EVALUATE, device="tpu") == '--device: expected one of auto, cpu, cuda, got "tpu"'
    assert (
        refused(done.folder, EVALUATE, by="knn/accuracy@5") == "--by: chooses among checkpoints; add --checkpoint all"
    )
    assert refused(done.folder, {"evaluate": {"knn": KNN}}, checkpoint="all") == (
        '--by: no evaluation is called "rankme"; there are: knn; rankme/rankme chooses where no figure is named'
    )
    assert refused(done.folder, EVALUATE, checkpoint="all", by="rankme/info/images") == (
        '--by: "rankme/info/images" is told beside the figures, and more of it is not better; name a figure'
    )
    assert (
        refused(done.export, EVALUATE, checkpoint="2")
        == f"--checkpoint: {done.export} is no run folder with checkpoints; leave it out"
    )
    plain = model_folder()
    assert (
        refused(plain, EVALUATE, network="student")
        == f"--network: {plain} holds one network; only checkpoints have a student"
    )
    assert refused(tmp_path, EVALUATE).startswith(f"{tmp_path}: neither a run, nor a checkpoint, nor an export")
    nowhere = tmp_path / "no" / "file"
    assert refused(done.folder, EVALUATE, out=nowhere) == f"--out: {nowhere} is a folder, or lies in none; name a file"


def test_images_that_are_none_for_the_model_are_refused(done, tmp_path):
    (tmp_path / "two").mkdir()
    for number in range(3):
        np.save(tmp_path / "two" / f"{number}.npy", np.zeros((8, 8, 2), np.uint8))
    data = {"name": "image-folder", "path": str(tmp_path / "two")}
    assert refused(done.folder, {"evaluate": {"rankme": {"data": data}}}) == (
        "config: evaluate.rankme.data: has 2 channels, the model 1"
    )
    assert refused(done.folder, {"evaluate": {"rankme": {"data": {**data, "path": "none"}}}}) == (
        f'config: evaluate.rankme.data.path: there is no folder "none" (looked in {Path.cwd()})'
    )
    for number in range(3):
        np.save(tmp_path / "two" / f"{number}.npy", np.full((8, 8), 700 + number, np.float32))
    found = refused(done.folder, {"evaluate": {"rankme": {"data": data}}})
    assert (
        found.startswith("config: evaluate.rankme.data: pixels (float32) from 700 to 702")
        and "have no declared range" in found
    )
    given = {"intensity": {"name": "full-range", "range": [0, 1000]}, "evaluate": {"rankme": {"data": data}}}
    assert api.evaluate(done.folder, given)["rows"][0]["rankme/info/images"] == 3


def test_unreadable_images_are_told_and_limited(done, tmp_path):
    for number in range(10):
        Image.fromarray(np.full((8, 8), 20 * number, np.uint8)).save(tmp_path / f"{number}.png")
    config = {"evaluate": {"rankme": {"data": {"name": "image-folder", "path": str(tmp_path)}}}}
    (tmp_path / "4.png").write_bytes(b"no image")
    with pytest.raises(
        DataError, match=r"1 of 10 images cannot be read, more than loader.max_unreadable = 0.01 allows"
    ):
        api.evaluate(done.folder, config)
    told = []
    row = api.evaluate(done.folder, {**config, "loader": {"max_unreadable": 0.2}}, note=told.append)["rows"][0]
    assert row["rankme/info/images"] == 9 and any("4.png" in text for text in told)
    assert not (done.folder / "unreadable.txt").exists()


def test_a_figure_that_is_not_finite_chooses_nothing(done, tmp_path):
    from dinomx_core.api_eval import best_of

    some = [{"checkpoint": "2", "step": 2, "a/b": float("nan")}, {"checkpoint": "4", "step": 4, "a/b": -1.0}]
    assert best_of(some, "a/b")["checkpoint"] == "4"
    with pytest.raises(ConfigError) as caught:
        best_of(some[:1], "a/b")
    assert str(caught.value) == '--by: "a/b" is not finite at any checkpoint; name another figure'
    with pytest.raises(ConfigError) as caught:
        best_of(some, "a/c")
    assert str(caught.value) == '--by: there is no figure "a/c"; there are: a/b'


def test_a_run_that_starts_anew_deletes_what_was_measured_of_the_old_one(toy):
    folder = api.run(toy(run={"steps": 1})).folder
    file = api.evaluate(folder, {"evaluate": {"rankme": {"data": DIGITS["query"]}}})["file"]
    assert len(rows(Path(file))) == 1
    api.run(toy(run={"steps": 1}), resume=True)
    assert len(rows(Path(file))) == 1
    api.run(toy(run={"steps": 1}), overwrite=True)
    assert not Path(file).exists()


def test_features_that_are_not_finite_are_told(toy, tmp_path):
    result = api.run(toy(checkpoint={"every": 4}))
    place = result.export / "model.safetensors"
    save_file({name: torch.full_like(tensor, torch.nan) for name, tensor in load_file(place).items()}, place)
    from dinomx_core import TrainingError

    with pytest.raises(TrainingError, match="the model's features are not finite"):
        api.evaluate(result.export, EVALUATE)
