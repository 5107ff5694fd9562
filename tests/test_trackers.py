"""Trackers: what they are told, that none of them disturbs a run, and that real ones keep what they were told."""

import importlib
import json
import shutil
import signal
import sys
from importlib.util import find_spec

import pytest

from dinomx_core import ConfigError, Stopped, api
from tests.fixtures import KNN, rows
from tests.test_report import Notes
from tests.test_resume import StopAt, assert_same

OFTEN = {"knn": {**KNN["knn"], "every": 2}}
PACKAGES = ("tensorboard", "wandb", "mlflow")
FAKE_WANDB = """
calls = []
class Run:
    def __init__(self, id):
        self.id, self.summary = id or "w-1", {}
    def define_metric(self, *a, **k): calls.append(("define", a, k))
    def log(self, row): calls.append(("log", row))
    def finish(self, exit_code): calls.append(("finish", exit_code))
class Settings:
    def __init__(self, **k): self.__dict__.update(k)
def init(**k):
    calls.append(("init", k))
    return Run(k["id"])
"""
FAKE_MLFLOW = """
calls = []
class Info: run_id = "m-1"
class Made: info = Info
class MlflowClient:
    def __init__(self, tracking_uri): calls.append(("uri", tracking_uri))
    def get_experiment_by_name(self, name): return None
    def create_experiment(self, name): calls.append(("experiment", name)); return "7"
    def create_run(self, experiment, run_name): calls.append(("run", experiment, run_name)); return Made
    def log_batch(self, run_id, metrics=(), params=()):
        calls.append(("batch", run_id, [(m.key, m.value, m.step) for m in metrics], [(p.key, p.value) for p in params]))
    def set_tag(self, run_id, key, value): calls.append(("tag", run_id, key, value))
    def set_terminated(self, run_id, status): calls.append(("terminated", run_id, status))
"""
FAKE_ENTITIES = """
class Metric:
    def __init__(self, key, value, timestamp, step): self.key, self.value, self.step = key, value, step
class Param:
    def __init__(self, key, value): self.key, self.value = key, value
"""


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    """Packages that write down how they are called."""
    place = tmp_path / "fakes"
    (place / "mlflow").mkdir(parents=True)
    (place / "wandb.py").write_text(FAKE_WANDB)
    (place / "mlflow" / "__init__.py").write_text(FAKE_MLFLOW)
    (place / "mlflow" / "entities.py").write_text(FAKE_ENTITIES)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("wandb", "mlflow")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(place)
    yield lambda name: importlib.import_module(name).calls
    for name in ("wandb", "mlflow", "mlflow.entities"):
        sys.modules.pop(name, None)


def test_a_tracker_whose_package_is_missing_is_refused_by_the_plan(toy, monkeypatch):
    monkeypatch.setattr("dinomx_core.builtin.trackers.options.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        api.plan(toy(tracker={name: {} for name in PACKAGES}))
    assert str(caught.value).splitlines() == [
        f"config: tracker.{name}: the package {name} is not installed; install it with: pip install 'dinomx[{name}]'"
        for name in PACKAGES
    ]


def test_no_package_is_imported_before_it_is_used(toy, fakes):
    api.plan(toy(tracker={"wandb": {}, "mlflow": {}}))
    assert not {"wandb", "mlflow"} & set(sys.modules)
    api.run(toy())
    assert not {"wandb", "mlflow"} & set(sys.modules)


def test_wandb_is_told_every_row_and_goes_on_with_the_same_run(toy, fakes):
    options = {"project": "cells", "tags": ["a"], "mode": "offline", "every": 2}
    config = toy(evaluate=OFTEN, tracker={"wandb": options}, checkpoint={"every": 2})
    with pytest.raises(Stopped):
        api.run(config, progress=StopAt(2, signal.SIGTERM))
    folder, calls = api.plan(config).run_dir, fakes("wandb")
    init = dict(calls[0][1])
    settings, told = vars(init.pop("settings")), init.pop("config")
    assert init == {
        "project": "cells", "entity": None, "group": None, "tags": ["a"], "mode": "offline", "dir": str(folder),
        "name": "run", "id": None, "resume": None,
    }  # fmt: skip
    assert settings == {"console": "off", "silent": True, "login_timeout": 60} and told["optimizer.lr.peak"] == 1e-3
    assert calls[-1] == ("finish", 1) and json.loads((folder / "trackers.json").read_text()) == {"wandb": "w-1"}
    del calls[:]
    api.run(config, resume=True)
    assert calls[0][1]["id"] == "w-1" and calls[0][1]["resume"] == "allow" and calls[-1] == ("finish", 0)
    metrics, evaluations = (
        [r for r in rows(folder / f"{n}.jsonl") if r["step"] >= 2] for n in ("metrics", "evaluations")
    )
    logged = [row for call, row in (call for call in calls if call[0] == "log")]
    assert [row["step"] for row in logged] == [2, 2, 3, 4]  # evaluation, steps 2 and the last, evaluation
    assert logged[1] == metrics[0] and logged[2] == metrics[1]
    assert logged[3]["knn/accuracy@5"] == evaluations[-1]["knn/accuracy@5"]


def test_mlflow_is_told_in_batches_with_names_that_it_takes(toy, fakes, tmp_path):
    options = {"name": "mlflow", "experiment": "cells"}
    config = toy(evaluate=OFTEN, tracker={"mine": options}, checkpoint={"every": 2, "keep_last": 9})
    folder = api.run(config).folder
    calls = fakes("mlflow")
    assert calls[:3] == [
        ("uri", f"sqlite:///{tmp_path}/runs/mlflow.db"), ("experiment", "cells"), ("run", "7", "run"),
    ]  # fmt: skip
    batches = [call[2:] for call in calls if call[0] == "batch"]
    assert all(len(metrics) <= 1000 and len(params) <= 100 for metrics, params in batches)
    params = dict(param for _, params in batches for param in params)
    assert params["run.batch_size"] == "8" and params["tracker.mine.experiment"] == "cells"
    metrics = [metric for metrics, _ in batches for metric in metrics]
    losses = [(step, value) for name, value, step in metrics if name == "loss"]
    assert losses == [(row["step"], row["loss"]) for row in rows(folder / "metrics.jsonl")]
    assert [step for name, _, step in metrics if name == "knn/accuracy_at_5"] == [0, 2, 4]
    assert calls[-1] == ("terminated", "m-1", "FINISHED")
    del calls[:]
    for name in ("3", "4"):
        shutil.rmtree(folder / "checkpoints" / name, ignore_errors=True)
    api.run(config, resume=True)
    assert calls[1] == ("terminated", "m-1", "RUNNING") and not [call for call in calls if call[0] == "run"]


@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_a_tracker_that_fails_is_told_once_and_the_run_goes_on(toy, fakes, monkeypatch, where):
    wandb = importlib.import_module("wandb")

    def broken(*_, **__):
        raise ConnectionError("no network\nand a long story")

    monkeypatch.setattr(*((wandb, "init") if where == "init" else (wandb.Run, where)), broken)
    notes = Notes()
    folder = api.run(toy(tracker={"wandb": {}}), progress=notes).folder
    told = "tracker.wandb: ConnectionError: no network; the run goes on without it"
    assert [text for text in notes.texts if "tracker" in text] == [told]
    assert len(rows(folder / "metrics.jsonl")) == 4


def test_a_tracked_run_is_the_same_run(toy, fakes):
    one = api.run(toy(run={"name": "tracked"}, tracker={"wandb": {}, "mlflow": {}})).folder
    assert_same(one, api.run(toy(run={"name": "untracked"})).folder)


def test_names_of_the_users_data_are_hidden_from_trackers_too(toy, fakes, image_folder):
    data = {"name": "image-folder", "path": str(image_folder), "split": None, "channels": 1}
    api.run(toy(data=data, report={"hash_ids": True}, tracker={"wandb": {}}))
    told = fakes("wandb")[0][1]["config"]
    assert str(image_folder) not in str(told) and len(told["data.path"]) == 10 and told["data.name"] == "image-folder"


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_keeps_every_scalar(toy):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = toy(evaluate=OFTEN, tracker={"tensorboard": {}}, checkpoint={"every": 2})
    with pytest.raises(Stopped):
        api.run(config, progress=StopAt(2, signal.SIGTERM))
    folder = api.run(config, resume=True).folder
    found = EventAccumulator(str(folder / "tensorboard")).Reload()
    for kind, name in (("metrics", "loss"), ("evaluations", "knn/accuracy@5")):
        events = [(event.step, event.value) for event in found.Scalars(name)]
        assert events == [(row["step"], pytest.approx(row[name], rel=1e-6)) for row in rows(folder / f"{kind}.jsonl")]
    assert "config/text_summary" in found.Tags()["tensors"]
    api.run(config, overwrite=True)
    assert len(list((folder / "tensorboard").iterdir())) == 1


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mlflow") is None or find_spec("sqlalchemy") is None, reason="mlflow is not installed")
def test_a_file_of_mlflow_keeps_the_run(toy, tmp_path):
    from mlflow import MlflowClient

    config = toy(evaluate=OFTEN, tracker={"mlflow": {}})
    notes = Notes()
    folder = api.run(config, progress=notes).folder
    assert [text for text in notes.texts if "tracker" in text] == []
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/runs/mlflow.db")
    key = json.loads((folder / "trackers.json").read_text())["mlflow"]
    run = client.get_run(key)
    assert run.info.status == "FINISHED" and run.data.params["run.batch_size"] == "8"
    history = sorted((metric.step, metric.value) for metric in client.get_metric_history(key, "loss"))
    assert history == [(row["step"], row["loss"]) for row in rows(folder / "metrics.jsonl")]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed")
def test_wandb_offline_keeps_the_run_without_a_network(toy):
    notes = Notes()
    folder = api.run(toy(evaluate=OFTEN, tracker={"wandb": {"mode": "offline"}}), progress=notes).folder
    assert [text for text in notes.texts if "tracker" in text] == []
    kept = list((folder / "wandb").glob("offline-run-*/*.wandb"))
    assert len(kept) == 1 and b"knn/accuracy@5" in kept[0].read_bytes()
