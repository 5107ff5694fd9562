"""Verdicts on runs made sick on purpose, and none on healthy ones."""

import contextlib
import math

import pytest
import torch

from dinomx_core import TrainingError, api
from dinomx_core.training.health import Health, assignment_metrics, feature_metrics
from tests.fixtures import rows

KNN = {
    "every": "25%",
    "k": [20],
    "bank": {"name": "digits", "split": "train"},
    "query": {"name": "digits", "split": "test"},
}
WELL = {
    "run": {"steps": 150, "batch_size": 32},
    "backbone": {"width": 32, "depth": 2, "drop_path": 0.0, "init_std": 0.18},
    "head": {"dino": {"prototypes": 256, "hidden": 64, "bottleneck": 32}},
    "loss": {"dino": {"local_view": "", "teacher_temperature": 0.03}},
    "teacher": {"momentum": {"peak": 0.99, "end": 1.0}},
    "augmentation": {"globals": {"area": [0.7, 1.0], "flip": 0.0, "jitter": 0.3}, "locals": None},
    "optimizer": {"lr": {"peak": 1e-3, "end": 1e-5, "warmup": "10%"}, "clip": 3.0},
}


def verdicts(folder):
    file = folder / "health.jsonl"
    return {row["name"]: row for row in rows(file)} if file.exists() else {}


@pytest.fixture
def well(toy):
    """A function of changes -> config of a run that learns; a key path in `changes` replaces what stands there."""

    def make(**changes):
        config = toy(**WELL)
        for path, value in changes.items():
            *tables, key = path.split("__")
            table = config
            for name in tables:
                table = table[name]
            table[key] = value
        return config

    return make


@pytest.mark.slow
def test_a_healthy_run_gets_no_verdict_and_tells_its_figures(well):
    folder = api.run(well(evaluate={"knn": KNN})).folder
    assert verdicts(folder) == {}
    metrics = rows(folder / "metrics.jsonl")
    told = {"dino/teacher_entropy", "dino/kl", "dino/prototypes", "gradient_norm"}
    assert all(told <= set(row) for row in metrics)
    looks = [row for row in metrics if "effective_rank" in row]
    assert [row["step"] for row in looks] == list(range(1, 150, 2))  # 1% of 150 steps is 2 (1.5, rounded)
    assert all(0 < row["feature_std"] < 1 and 1 < row["effective_rank"] < 32 for row in looks)


SICK = {
    "uniform": (
        {"loss__dino__teacher_temperature": 1.0},
        "collapse to uniform (dino)",
        "the teacher gives every prototype the same probability",
        "Lower loss.dino.teacher_temperature",
    ),
    "one-hot": (
        {"loss__dino__target": {"name": "centering", "momentum": 1.0}},
        "collapse to one prototype (dino)",
        "the teacher gives all images of a batch the same prototype",
        "Centre the targets (loss.dino.target",
    ),
    "rank": (
        {"optimizer__lr": {"peak": 2e-2, "warmup": "10%"}, "optimizer__clip": 0.0},
        "rank falling",
        "the features' effective rank fell from",
        "Lower optimizer.lr",
    ),
    "still": (
        {"optimizer__lr": 0.0, "run__steps": 300},
        "standing still",
        "neither loss nor gradient nor features have moved since step",
        "Raise optimizer.lr",
    ),
    "diverging": (
        {"optimizer__lr": {"start": 1e-4, "peak": 150.0, "warmup": "100%"}, "optimizer__clip": 0.0},
        "diverging",
        "what the student misses of its target went from",
        "Lower optimizer.lr, lengthen its warm-up, or clip harder",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("illness", SICK)
def test_a_sick_run_is_told_so_with_a_remedy(well, illness):
    changes, name, words, remedy = SICK[illness]
    config = well(**changes)
    with contextlib.suppress(TrainingError):  # a loss that is no longer finite ends the run, after the verdict
        api.run(config)
    found = verdicts(api.plan(config).run_dir)
    assert name in found, sorted(found)
    assert words in found[name]["message"] and remedy in found[name]["remedy"]


def test_a_fatal_verdict_ends_the_run_where_the_config_says_so(well):
    config = well(loss__dino__teacher_temperature=1.0, health={"stop": True})
    with pytest.raises(TrainingError, match=r"step \d+: collapse to uniform \(dino\): .*\(health.stop is true\)"):
        api.run(config)
    assert len(rows(api.plan(config).run_dir / "metrics.jsonl")) < 100


@pytest.mark.slow
def test_a_warm_start_that_gets_worse_is_told_so_and_one_that_does_not_is_not(well):
    """Features that know the digits, then training that ruins them; and gentle training that does not."""
    good = api.run(well(evaluate={"knn": KNN}, run__steps=300))
    warm = {"name": "hf", "weights": str(good.export)}
    ruined = well(
        evaluate={"knn": KNN}, backbone=warm, run__name="ruined", optimizer__lr=0.05, optimizer__clip=0.0, run__steps=60
    )
    found = verdicts(api.run(ruined).folder)["worse than the start"]
    assert (
        found["message"].startswith("knn/accuracy@20 fell from 0.")
        and ", as the weights came, to 0." in found["message"]
    )
    assert "Lower optimizer.lr, let the heads settle before the backbone moves" in found["remedy"]
    gentle = well(evaluate={"knn": KNN}, backbone=warm, run__name="gentle", optimizer__lr=1e-6, run__steps=60)
    assert "worse than the start" not in verdicts(api.run(gentle).folder)


def test_figures_that_fall_together_are_one_verdict(toy):
    health = Health(api.plan(toy(run={"steps": 8})), warm=True)
    for step, value in ((0, 0.7), (4, 0.5)):
        assert health.evaluated(step, {"knn/info/mae": 1 - value, "knn/a": value, "knn/b": value}) == []
    (verdict,) = health.evaluated(6, {"knn/info/mae": 0.1, "knn/a": 0.4, "knn/b": 0.6})
    assert (verdict.name, verdict.step) == ("worse than the start", 6)
    assert verdict.message == "knn/a fell from 0.7000, as the weights came, to 0.4000"
    assert health.evaluated(8, {"knn/a": 0.4, "knn/b": 0.4}) == []


def test_figures_of_known_features():
    flat = feature_metrics(torch.ones(20, 8))
    assert float(flat["effective_rank"]) == pytest.approx(1, abs=1e-4) and float(flat["feature_std"]) == pytest.approx(
        0, abs=1e-6
    )
    full = feature_metrics(torch.eye(8))
    assert float(full["effective_rank"]) == pytest.approx(8, rel=1e-5)
    two = feature_metrics(torch.eye(8)[[0, 1] * 10])
    assert float(two["effective_rank"]) == pytest.approx(2, rel=1e-5)
    wide = feature_metrics(torch.randn(1024, 8, generator=torch.Generator().manual_seed(0)))
    assert float(wide["feature_std"]) == pytest.approx(1, rel=0.05)


def test_figures_of_known_assignments():
    uniform = assignment_metrics(torch.full((6, 4), 0.25), torch.tensor(math.log(4)))
    assert [round(float(uniform[name]), 5) for name in ("teacher_entropy", "kl", "prototypes")] == [1, 0, 4]
    one = assignment_metrics(torch.eye(4)[[2] * 6], torch.tensor(0.7))
    assert [round(float(one[name]), 5) for name in ("teacher_entropy", "kl", "prototypes")] == [0, 0.7, 1]
    each = assignment_metrics(torch.eye(4), torch.tensor(0.0))
    assert [round(float(each[name]), 5) for name in ("teacher_entropy", "prototypes")] == [0, 4]
