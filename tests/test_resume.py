"""Checkpoints and resume: bit-identical, whatever breaks off a run and whatever is left of it."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from dinomx_core import ConfigError, Stopped, TrainingError, api, folders
from dinomx_core.testing.runs import left_by
from dinomx_core.training import checkpoint as ckpt
from tests.fixtures import KNN, rows


def assert_same(one, other):
    (rows_one, tensors_one), (rows_other, tensors_other) = left_by(one), left_by(other)
    assert rows_one == rows_other
    assert tensors_one.keys() == tensors_other.keys() and len(tensors_one) > 40
    assert all(torch.equal(tensors_one[name], tensors_other[name]) for name in tensors_one)


class StopAt:
    """A watcher that sends the process a signal after a step."""

    def __init__(self, step, number=None, error=None):
        self.at, self.number, self.error, self.notes = step, number, error, []

    def start(self, plan): ...
    def evaluated(self, step, figures): ...
    def close(self): ...

    def note(self, text):
        self.notes.append(text)

    def step(self, row):
        if row["step"] + 1 == self.at:
            if self.error:
                raise self.error
            os.kill(os.getpid(), self.number)


def assert_a_cut_changes_nothing(config):
    """A run of some steps, and the same one stopped by a signal in between and gone on with, leave the same."""
    config["checkpoint"] = {"every": 3}
    config["run"]["name"] = "whole"
    whole = api.run(config).folder
    config["run"]["name"] = "cut"
    with pytest.raises(Stopped):
        api.run(config, progress=StopAt(4, signal.SIGTERM))
    assert_same(whole, api.run(config, resume=True).folder)


def config_of(toy, name, **changes):
    run = {"name": name, "steps": 10, **changes.pop("run", {})}
    return toy(run=run, evaluate=KNN, checkpoint={"every": 4}, **changes)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_saves_and_leaves_and_resume_goes_on_bit_by_bit(toy, number):
    whole = api.run(config_of(toy, "whole")).folder
    with pytest.raises(Stopped) as caught:
        api.run(config_of(toy, "cut"), progress=StopAt(5, number))
    assert caught.value.exit_code == 4
    assert (
        str(caught.value)
        == f"{signal.Signals(number).name} after step 5 of 10; saved, and `--resume` goes on from there"
    )
    watcher = StopAt(0)
    cut = api.run(config_of(toy, "cut", loader={"workers": 2}), resume=True, progress=watcher).folder
    assert watcher.notes[0] == "going on from step 5"
    assert_same(whole, cut)


@pytest.mark.slow
def test_a_crash_between_checkpoints_repeats_the_steps_since_the_last(toy):
    whole = api.run(config_of(toy, "whole", run={"precision": "bf16", "accumulation": 2})).folder
    with pytest.raises(MemoryError):
        api.run(
            config_of(toy, "cut", run={"precision": "bf16", "accumulation": 2}), progress=StopAt(7, error=MemoryError())
        )
    assert len(rows(whole.parent / "cut" / "metrics.jsonl")) == 7
    cut = api.run(config_of(toy, "cut", run={"precision": "bf16", "accumulation": 2}), resume=True).folder
    assert_same(whole, cut)


@pytest.mark.slow
def test_the_loss_scale_of_fp16_goes_on_too(toy):
    whole = api.run(config_of(toy, "whole", run={"precision": "fp16", "steps": 24})).folder
    with pytest.raises(Stopped):
        api.run(config_of(toy, "cut", run={"precision": "fp16", "steps": 24}), progress=StopAt(9, signal.SIGTERM))
    cut = api.run(config_of(toy, "cut", run={"precision": "fp16", "steps": 24}), resume=True).folder
    assert_same(whole, cut)
    states = [json.loads((run / "checkpoints" / "24" / "state.json").read_text()) for run in (whole, cut)]
    assert states[0] == states[1] and states[0]["scaler"]


@pytest.mark.slow
def test_max_hours_saves_and_leaves(toy):
    with pytest.raises(Stopped, match=r"run.max_hours = 1e-06 after step 1 of 10; saved"):
        api.run(config_of(toy, "cut", run={"max_hours": 1e-6}))
    whole = api.run(config_of(toy, "whole")).folder
    assert_same(whole, api.run(config_of(toy, "cut"), resume=True).folder)


@pytest.mark.slow
def test_resume_starts_where_there_is_nothing(toy):
    first = api.run(config_of(toy, "run"), resume=True)
    assert len(rows(first.folder / "metrics.jsonl")) == 10


@pytest.mark.slow
def test_a_broken_checkpoint_is_named_and_the_one_before_it_taken(toy):
    whole = api.run(config_of(toy, "whole")).folder
    for fault in ("truncated", "changed", "missing", "no manifest"):
        cut = api.run(config_of(toy, fault), overwrite=True).folder
        file = cut / "checkpoints" / "10" / "teacher.safetensors"
        data = file.read_bytes()
        if fault == "truncated":
            file.write_bytes(data[:-10])
        elif fault == "changed":
            file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        elif fault == "missing":
            file.unlink()
        else:
            (file.parent / "manifest.json").write_text("{")
        watcher = StopAt(0)
        api.run(config_of(toy, fault), resume=True, progress=watcher)
        said = {
            "truncated": f"teacher.safetensors has {len(data) - 10} bytes, not {len(data)}",
            "changed": "teacher.safetensors is not what was written (its SHA-256 differs)",
            "missing": "teacher.safetensors is missing",
            "no manifest": "manifest.json cannot be read",
        }
        assert watcher.notes[0].startswith(f"checkpoint {file.parent} is left out: {said[fault]}")
        assert watcher.notes[1] == "going on from step 8"
        assert_same(whole, cut)


@pytest.mark.slow
def test_what_is_kept(toy):
    config = config_of(toy, "run", run={"steps": 12})
    config["checkpoint"] = {"every": 1, "keep_last": 2, "keep_every": 5, "keep_best": "knn/accuracy@5"}
    folder = api.run(config).folder
    assert folders.steps_in(folder / "checkpoints") == [12, 11, 10, 5]
    found = {row["step"]: row["knn/accuracy@5"] for row in rows(folder / "evaluations.jsonl")}
    best = json.loads((folder / "checkpoints" / "best" / "manifest.json").read_text())
    assert best["value"] == max(found.values()) == found[best["step"]] and best["figure"] == "knn/accuracy@5"
    assert best["step"] == min(step for step, value in found.items() if value == best["value"])
    assert {p.name for p in (folder / "checkpoints" / "best").iterdir()} == {
        "teacher.safetensors",
        "dinomx.json",
        "manifest.json",
    }
    assert folders.fault_of(folder / "checkpoints" / "best") == ""


def test_a_figure_that_no_evaluation_gives_is_refused_for_keep_best(toy):
    config = config_of(toy, "run")
    config["checkpoint"] = {"keep_best": "linear/accuracy"}
    with pytest.raises(ConfigError) as caught:
        api.plan(config)
    assert 'checkpoint.keep_best: no evaluation is called "linear"; there are: knn' in str(caught.value)


@pytest.mark.slow
def test_a_changed_config_is_refused_naming_the_keys(toy):
    with pytest.raises(Stopped):
        api.run(config_of(toy, "run"), progress=StopAt(4, signal.SIGTERM))
    changed = config_of(toy, "run", optimizer={"lr": 2e-3, "clip": 1.0}, head={"dino": {"prototypes": 64}})
    with pytest.raises(ConfigError) as caught:
        api.run(changed, resume=True)
    remedy = "; the run cannot go on with it: put it back, or start another with another run.name"
    place = changed["run"]["out"] + "/run/plan.json"
    lines = str(caught.value).splitlines()
    assert f"config: head.dino.prototypes: is 64 and was 32 in {place}{remedy}" in lines
    assert f"config: optimizer.clip: is 1.0 and was 0.0 in {place}{remedy}" in lines
    assert all(line.split(": ")[1].startswith(("head.dino", "optimizer.")) for line in lines)


@pytest.mark.slow
def test_what_may_change_may_change(toy):
    whole = api.run(config_of(toy, "whole")).folder
    with pytest.raises(Stopped):
        api.run(config_of(toy, "cut"), progress=StopAt(4, signal.SIGTERM))
    changed = config_of(toy, "cut", loader={"workers": 1, "prefetch": 3}, log={"every": 1}, run={"max_hours": 9.0})
    changed["checkpoint"] = {"every": 2, "keep_last": 3}
    assert_same(whole, api.run(changed, resume=True).folder)


@pytest.mark.slow
def test_more_steps_go_on_where_schedules_have_their_lengths_in_steps(toy):
    fixed = {
        "optimizer": {"lr": {"peak": 1e-3, "end": 1e-5, "warmup": 2, "decay": 12}},
        "teacher": {"momentum": {"peak": 0.9, "end": 1.0, "decay": 14}},
        "loss": {"dino": {"teacher_temperature": 0.04}},
        "checkpoint": {"every": 4},
    }
    whole = api.run(toy(run={"name": "whole", "steps": 14}, **fixed)).folder
    api.run(toy(run={"name": "cut", "steps": 6}, **fixed))
    assert_same(whole, api.run(toy(run={"name": "cut", "steps": 14}, **fixed), resume=True).folder)
    with pytest.raises(ConfigError, match="run.steps: 3 steps, but the run has done 14; ask for as many or more"):
        api.run(toy(run={"name": "cut", "steps": 3}, **fixed), resume=True)
    api.run(toy(run={"name": "share", "steps": 6}))
    with pytest.raises(ConfigError) as caught:
        api.run(toy(run={"name": "share", "steps": 40}), resume=True)
    assert "another number of steps (6 before, 40 now) changes loss.dino.teacher_temperature: give its warmup" in str(
        caught.value
    )
    assert "changes teacher.momentum: give its decay in steps (teacher.momentum.decay = 6 is what" in str(caught.value)


def test_how_often_is_evaluated_may_change_and_a_plugins_own_every_may_not():
    from dinomx_core.planning.resume import FREE

    assert FREE.fullmatch("evaluate.knn.every") and FREE.fullmatch("log.every") and FREE.fullmatch("loader.workers")
    for key in ("loss.gram.every", "strategy.freeze.every", "loader.shuffle", "evaluate.knn.k", "run.batch_size"):
        assert not FREE.fullmatch(key), key


def test_more_images_than_the_run_began_with_are_refused(toy, image_folder):
    data = {
        "data": {"name": "image-folder", "path": str(image_folder), "split": None},
        "augmentation": {"mean": [0.5], "std": [0.5]},
    }
    with pytest.raises(Stopped):
        api.run(toy(**data), progress=StopAt(2, signal.SIGTERM))
    (image_folder / "cats" / "0.png").rename(image_folder / "cats" / "new.png")
    with pytest.raises(
        ConfigError, match="data: holds as many images, but others: names were added, taken out or changed"
    ):
        api.run(toy(**data), resume=True)
    (image_folder / "dogs" / "9.png").write_bytes((image_folder / "dogs" / "1.png").read_bytes())
    with pytest.raises(
        ConfigError, match="data: holds 13 images and held 12; the order of the images would be another"
    ):
        api.run(toy(**data), resume=True)


@pytest.mark.slow
def test_a_row_cut_short_by_a_crash_is_left_out(toy):
    whole = api.run(config_of(toy, "whole")).folder
    with pytest.raises(Stopped):
        api.run(config_of(toy, "cut"), progress=StopAt(5, signal.SIGTERM))
    with (whole.parent / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "loss": 3.')
    assert_same(whole, api.run(config_of(toy, "cut"), resume=True).folder)


@pytest.mark.slow
def test_verdicts_are_told_once_over_a_resume(toy):
    flat = {"loss": {"dino": {"teacher_temperature": 5.0}}, "health": {"every": 1}}
    whole = api.run(toy(run={"name": "whole", "steps": 40}, **flat)).folder
    with pytest.raises(Stopped):
        api.run(toy(run={"name": "cut", "steps": 40}, **flat), progress=StopAt(30, signal.SIGTERM))
    cut = api.run(toy(run={"name": "cut", "steps": 40}, **flat), resume=True).folder
    told = rows(whole / "health.jsonl")
    assert [row["name"] for row in told] == ["collapse to uniform (dino)"] and told[0]["step"] < 30
    assert rows(cut / "health.jsonl") == told


# By the clock, as users and batch systems do it ------------------------------------------------------------------------


def command(config, tmp_path):
    (tmp_path / "c.toml").write_text(api.to_toml(config))
    code = "from dinomx_core.cli import main; main()"
    return [sys.executable, "-c", code, "run", str(tmp_path / "c.toml"), "--resume", "--quiet"]


@pytest.mark.slow
def test_a_signal_to_every_process_of_the_job_saves_and_leaves(toy, tmp_path):
    config = config_of(toy, "run", run={"steps": 4000}, loader={"workers": 2})
    config["checkpoint"] = {"every": "100%"}
    config["evaluate"] = {}
    process = subprocess.Popen(command(config, tmp_path), start_new_session=True, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "runs" / "run" / "metrics.jsonl"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 3:
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 4, said
    step = folders.steps_in(tmp_path / "runs" / "run" / "checkpoints")[0]
    assert said == f"stopped: SIGTERM after step {step} of 4000; saved, and `--resume` goes on from there\n"
    assert len(rows(metrics)) == step


def whole_lines(file):
    """How many rows stand whole in a file that another process may be writing at this moment."""
    return file.read_bytes().count(b"\n") if file.exists() else 0


@pytest.mark.slow
def test_kill_9_at_random_moments_changes_nothing(toy, tmp_path):
    """Eight kills: every other one as soon as a checkpoint is being written, the rest by the clock."""
    changes = {"run": {"steps": 400}, "loader": {"workers": 1}}
    slow = config_of(toy, "cut", **changes)
    slow["checkpoint"] = {"every": 3}
    slow["evaluate"]["knn"]["every"] = 100
    quiet = {**slow, "run": {**slow["run"], "name": "whole"}}
    whole = api.run(quiet).folder
    cut = whole.parent / "cut"
    rng, kills, in_writing = random.Random(0), 0, 0
    while kills < 8:
        process = subprocess.Popen(command(slow, tmp_path), start_new_session=True)
        began, patience = time.monotonic(), rng.uniform(0.0, 0.4)
        before = whole_lines(cut / "metrics.jsonl")
        while process.poll() is None:  # the start takes seconds; what counts is the time since the first new row
            drafts = list((cut / "checkpoints").glob(".*.draft")) if cut.exists() else []
            moved = whole_lines(cut / "metrics.jsonl") != before
            began = began if moved else time.monotonic()
            if drafts if kills % 2 else time.monotonic() - began > patience:
                break
            time.sleep(0.001)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
            in_writing += bool(list((cut / "checkpoints").glob(".*.draft")))
        process.wait()
        if process.returncode == 0:
            break
    subprocess.run(command(slow, tmp_path), check=True)
    print(f"{kills} kills, {in_writing} while a checkpoint was written")
    assert kills == 8 and 2 <= in_writing < 8
    assert_same(whole, cut)


# What a crash, or a stranger, leaves ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_pruning_never_counts_a_broken_checkpoint(toy):
    config = config_of(toy, "run", run={"steps": 12})
    config["checkpoint"] = {"every": 1, "keep_last": 2}
    with pytest.raises(Stopped):
        api.run(config, progress=StopAt(8, signal.SIGTERM))
    checkpoints = api.plan(config).run_dir / "checkpoints"
    assert folders.steps_in(checkpoints) == [8, 7]
    (checkpoints / "8" / "student.safetensors").write_bytes(b"")
    (checkpoints / "99").mkdir()
    (checkpoints / ".5.draft").mkdir()
    with pytest.raises(MemoryError):
        api.run(config, resume=True, progress=StopAt(8, error=MemoryError()))
    assert [step for step in folders.steps_in(checkpoints) if not folders.fault_of(checkpoints / str(step))][-1:] == [7]
    assert not (checkpoints / ".5.draft").exists() and not (checkpoints / "99").exists()
    api.run(config, resume=True)
    assert folders.steps_in(checkpoints) == [12, 11]


@pytest.mark.slow
def test_checkpoints_of_which_none_is_whole_are_refused_not_deleted(toy):
    folder = api.run(config_of(toy, "run")).folder
    for step in folders.steps_in(folder / "checkpoints"):
        (folder / "checkpoints" / str(step) / "manifest.json").write_text("{")
    with pytest.raises(
        ConfigError, match="run.name: no checkpoint is whole; bring one back, or start anew with --overwrite: check"
    ):
        api.run(config_of(toy, "run"), resume=True)
    assert folders.steps_in(folder / "checkpoints") == [10, 8] and len(rows(folder / "metrics.jsonl")) == 10


@pytest.mark.slow
@pytest.mark.parametrize(
    "left", [["config.toml"], [".config.toml.draft"], ["metrics.jsonl", "config.toml"], ["checkpoints/"]]
)
def test_a_start_that_was_cut_off_starts_again_and_strangers_stay(toy, left):
    place = api.plan(config_of(toy, "run")).run_dir
    place.mkdir(parents=True)
    for name in left:
        (place / name).mkdir() if name.endswith("/") else (place / name).write_text("")
    (place / ".notes").write_text("mine")
    if left == [".config.toml.draft"]:
        (place / ".notes").unlink()
    api.run(config_of(toy, "run"), resume=True)
    assert len(rows(place / "metrics.jsonl")) == 10


@pytest.mark.slow
@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"values": {}, "data": {}}'])
def test_a_plan_that_cannot_be_read_is_refused_in_words(toy, text):
    folder = api.run(config_of(toy, "run")).folder
    (folder / "plan.json").write_text(text)
    with pytest.raises(ConfigError, match=r"plan.json: cannot be read as a plan \(.*\); start anew with --overwrite"):
        api.run(config_of(toy, "run"), resume=True)


def test_best_is_the_best_of_one_figure_and_outlives_a_crash(toy, tmp_path):
    from dinomx_core.training.build import build

    parts, place = build(api.plan(toy())), tmp_path / "checkpoints"
    kept = [ckpt.save_best(parts, place, *case) for case in (
        (0, "a", 0.5), (1, "a", float("nan")), (2, "a", 0.4), (3, "a", 0.6), (4, "b", 0.1), (5, "b", 0.1),
    )]  # fmt: skip
    assert kept == [True, False, False, True, True, False]
    (place / "best").rename(place / ".best.old")  # what a crash between two moves leaves
    assert not ckpt.save_best(parts, place, 6, "b", 0.05)
    assert json.loads((place / "best" / "manifest.json").read_text())["step"] == 4


def test_a_figure_that_is_not_there_is_refused_at_the_first_evaluation(toy):
    config = config_of(toy, "run")
    config["checkpoint"] = {"keep_best": "knn/accuracy@999"}
    with pytest.raises(
        ConfigError,
        match='checkpoint.keep_best: there is no figure "knn/accuracy@999"; there are: knn/accuracy@5, knn/balanced_accuracy@5, knn/auroc@5',
    ):
        api.run(config)


@pytest.mark.slow
def test_a_run_that_is_done_is_left_as_it_is(toy):
    first = api.run(config_of(toy, "run"))
    before = {p: p.stat().st_mtime_ns for p in first.folder.rglob("*")}
    watcher = StopAt(0)
    assert api.run(config_of(toy, "run"), resume=True, progress=watcher) == first
    assert {p: p.stat().st_mtime_ns for p in first.folder.rglob("*")} == before and watcher.notes == [
        "done already: 10 steps"
    ]


def test_weights_that_are_not_finite_are_not_saved(toy):
    config = toy(
        run={"steps": 6},
        optimizer={"lr": {"peak": 1e38, "start": 1e-3, "warmup": 6}},
        checkpoint={"every": 1, "keep_last": 1},
    )
    with pytest.raises(TrainingError, match="not finite"):
        api.run(config)
    step, notes = folders.newest_whole(api.plan(config).run_dir / "checkpoints")
    saved = load_file(api.plan(config).run_dir / "checkpoints" / str(step) / "student.safetensors")
    assert step >= 1 and notes == [] and all(bool(torch.isfinite(t).all()) for t in saved.values())
