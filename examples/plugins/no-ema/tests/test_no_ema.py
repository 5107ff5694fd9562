"""No moving average: what a copy with momentum 0 computes, without the copy."""

from pathlib import Path

import pytest
import torch

from dinomx_core import api
from dinomx_core.testing.processes import group
from dinomx_core.training.build import build
from dinomx_no_ema import plugin
from tests import mixes, together
from tests.fixtures import KNN, TIMINGS, rows, steps

NO_EMA = {"teacher": {"name": "no-ema"}}
STILL = {"backbone": {"drop_path": 0.0}}
SINKHORN = {"loss": {"dino": {"target": {"name": "sinkhorn-knopp"}}}}


def trained(config, count=4):
    """Rows of some steps without times, and what was trained."""
    parts = build(api.plan(config, plugins=[plugin]))
    found = [{name: value for name, value in row.items() if name not in TIMINGS} for row in steps(parts, count)]
    return found, parts


@pytest.mark.parametrize("changes", [{}, {"strategies": ["freeze"], "strategy": {"freeze": {"blocks": 1}}}])
def test_it_computes_what_an_average_of_momentum_0_does(toy, changes):
    exact = {**STILL, **changes, "run": {"precision": "float64"}}
    ours, parts = trained(toy(**NO_EMA, **exact))
    theirs, copied = trained(toy(teacher={"name": "ema", "momentum": {"peak": 0.0, "end": 0.0}}, **exact))
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, rel=1e-6)  # features are told in float32
    assert len({row["loss"] for row in ours}) == 4
    assert parts.teacher.network is parts.student
    assert copied.teacher.network is not copied.student
    assert len(list(parts.objective.parameters())) < len(list(copied.objective.parameters()))


def test_there_is_no_second_network_on_disk_and_the_student_is_exported(toy):
    result = api.run(toy(**NO_EMA), plugins=[plugin])
    place = result.folder / "checkpoints" / "4"
    assert (place / "student.safetensors").exists()
    assert not (place / "teacher.safetensors").exists()
    image = [torch.arange(64, dtype=torch.uint8).view(1, 8, 8)]
    exported, student = api.load(result.export)(image), api.load(place, network="student")(image)
    assert torch.equal(exported.patches, student.patches)


def test_measuring_the_student_leaves_its_drop_path_on(toy):
    def losses(name, **changes):
        folder = api.run(toy(run={"name": name}, **NO_EMA, **changes), plugins=[plugin]).folder
        return [row["loss"] for row in rows(folder / "metrics.jsonl")]

    measured = losses("measured", evaluate={"knn": {**KNN["knn"], "every": 1}})
    assert measured == losses("plain")
    assert measured != losses("still", **STILL)


def test_a_stage_with_an_average_goes_on_from_one_without(toy):
    stages = [{"name": "first", **NO_EMA}, {"name": "second", "teacher": {"name": "ema", "momentum": 0.9}}]
    result = api.run(toy(run={"steps": 2}, stage=stages), plugins=[plugin])
    assert (result.folder.parent / "second" / "export" / "model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_compute_what_one_does(kind):
    one = together.train(mixes.config("dinov1", NO_EMA, SINKHORN), 5, plugin.__name__)
    table = mixes.config("dinov1", NO_EMA, SINKHORN, {"parallelism": {"name": kind, "processes": 2}})
    many = group(2)("tests.together:train", table, 5, plugin.__name__)[0]
    assert [row["loss"] for row in many["rows"]] == pytest.approx([row["loss"] for row in one["rows"]], rel=1e-8)


@pytest.mark.slow
def test_the_example_learns_and_centering_alone_would_collapse(tmp_path):
    config = Path(__file__).parents[1] / "example.toml"
    sets = [f"run.out={tmp_path}", "run.device=cpu", "run.threads=1"]
    result = api.run(config, overrides=sets, plugins=[plugin])
    found = rows(result.folder / "metrics.jsonl")
    assert found[-1]["dino/prototypes"] > 200
    assert found[-1]["dino/kl"] < 0.2 * found[0]["dino/kl"]
    start, *_, end = [row["knn/accuracy@20"] for row in rows(result.folder / "evaluations.jsonl")]
    assert end > start + 0.03
    assert not (result.folder / "health.jsonl").exists()
    centred = [*sets, "run.name=centred", "run.steps=40", "loss.dino.target.name=centering", "evaluate.knn.every=40"]
    collapsed = rows(api.run(config, overrides=centred, plugins=[plugin]).folder / "health.jsonl")
    assert "collapse to one prototype (dino)" in [row["name"] for row in collapsed if row["fatal"]]
