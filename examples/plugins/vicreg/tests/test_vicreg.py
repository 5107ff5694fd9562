"""VICReg: the paper's numbers, the whole batch over processes, and no collapse."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dinomx_core import ConfigError, api
from dinomx_core.builtin.single import SingleProcess
from dinomx_core.testing.processes import group
from dinomx_core.training.build import build
from dinomx_core.training.flow import Views
from dinomx_vicreg import plugin
from dinomx_vicreg.expander import BatchNorm, Expander
from dinomx_vicreg.loss import VicregLoss
from tests import mixes, together
from tests.fixtures import rows, steps

VICREG = {
    "loss": {"dino": None, "vicreg": {}},
    "head": {"dino": None, "expander": {"outputs": 8, "hidden": 16}},
    "augmentation": {"locals": None},
}


def by_hand(one, other, eps=1e-4, margin=1.0):
    """The three terms of two crops (B, K) as sums over images and features, one number at a time."""
    count, width = len(one), len(one[0])
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    columns = lambda crop: [[row[feature] for row in crop] for feature in range(width)]  # noqa: E731

    def between(a, b):
        return sum((x - mean(a)) * (y - mean(b)) for x, y in zip(a, b)) / (count - 1)

    near = mean([(x - y) ** 2 for ours, theirs in zip(one, other) for x, y in zip(ours, theirs)])
    spread = covariances = 0.0
    for crop in (columns(one), columns(other)):
        spread += mean([max(0.0, margin - math.sqrt(between(a, a) + eps)) for a in crop])
        covariances += sum(between(crop[i], crop[j]) ** 2 for i in range(width) for j in range(width) if i != j) / width
    return {"invariance": near, "variance": spread, "covariance": covariances}


def loss_of(embeddings, **options):
    """The loss of embeddings (V, B, K)."""
    loss = VicregLoss(plugin.Vicreg(**options), SimpleNamespace(parallelism=SingleProcess(None, torch.device("cpu"))))
    return loss({loss.request: embeddings}, Views({}), {})


def test_the_loss_is_that_of_the_paper():
    torch.manual_seed(0)
    crops = torch.randn(2, 6, 4, dtype=torch.float64) * torch.tensor([0.2, 0.9, 1.5, 0.0])
    wanted = by_hand(*crops.tolist())
    found = loss_of(crops)
    for name, value in wanted.items():
        assert found.metrics[name].item() == pytest.approx(value, rel=1e-9), name
    total = 25 * wanted["invariance"] + 25 * wanted["variance"] + wanted["covariance"]
    assert found.value.item() == pytest.approx(total, rel=1e-9)
    assert loss_of(crops, invariance=1.0, variance=2.0, covariance=3.0).value.item() == pytest.approx(
        wanted["invariance"] + 2 * wanted["variance"] + 3 * wanted["covariance"], rel=1e-9
    )


def test_more_crops_are_compared_in_all_pairs():
    torch.manual_seed(0)
    crops = torch.randn(3, 5, 4, dtype=torch.float64)
    pairs = [by_hand(crops[i].tolist(), crops[j].tolist()) for i, j in ((0, 1), (0, 2), (1, 2))]
    found = loss_of(crops).metrics
    for name in pairs[0]:
        assert found[name].item() == pytest.approx(sum(pair[name] for pair in pairs) / 3, rel=1e-9), name


def test_embeddings_that_are_all_the_same_have_a_gradient_and_finite_numbers():
    crops = torch.ones(2, 4, 3, requires_grad=True)
    found = loss_of(crops)
    found.value.backward()
    assert found.metrics["variance"].item() == pytest.approx(2 * (1 - 0.01))  # the root of eps
    assert bool(torch.isfinite(crops.grad).all())


def test_the_expander_is_the_papers_and_the_plan_counts_it():
    options = plugin.Expander(outputs=8, hidden=16)
    head = Expander(options, 4)
    kinds = [nn.Linear, BatchNorm, nn.ReLU, nn.Linear, BatchNorm, nn.ReLU, nn.Linear]
    assert [type(layer) for layer in head] == kinds
    shape = plugin.expander_shape(options, 4)
    assert (shape.outputs, shape.parameters) == (8, sum(p.numel() for p in head.parameters()))
    assert not list(head.buffers())


def test_batch_norm_is_torchs_and_the_same_in_evaluation():
    torch.manual_seed(0)
    x, ours, theirs = torch.randn(6, 4), BatchNorm(4), nn.BatchNorm1d(4)
    torch.testing.assert_close(ours(x), theirs(x))
    assert torch.equal(ours.eval()(x), ours.train()(x))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_compute_what_one_does(kind):
    one = together.train(mixes.config("dinov1", VICREG), 5, plugin.__name__)
    table = mixes.config("dinov1", VICREG, {"parallelism": {"name": kind, "processes": 2}})
    many = group(2)("tests.together:train", table, 5, plugin.__name__)[0]
    for ours, theirs in zip(one["rows"], many["rows"], strict=True):
        for name in ("loss", "gradient_norm", "vicreg/variance", "vicreg/covariance"):
            assert theirs[name] == pytest.approx(ours[name], rel=1e-8), (ours["step"], name)


def test_variance_is_what_keeps_embeddings_apart(toy):
    def spread(**options):
        config = toy(**{**VICREG, "loss": {"dino": None, "vicreg": options}}, run={"steps": 30}, optimizer={"lr": 1e-2})
        return steps(build(api.plan(config, plugins=[plugin])), 30)[-1]["vicreg/std"]

    assert spread() > 5 * spread(variance=1e-6)


@pytest.mark.slow
def test_the_example_learns(tmp_path):
    config = Path(__file__).parents[1] / "example.toml"
    result = api.run(config, overrides=[f"run.out={tmp_path}", "run.device=cpu", "run.threads=1"], plugins=[plugin])
    found = rows(result.folder / "metrics.jsonl")
    assert found[-1]["loss"] < 0.75 * found[0]["loss"]
    assert found[-1]["vicreg/std"] > 1.5 * found[0]["vicreg/std"]
    looks = [row["effective_rank"] for row in found if "effective_rank" in row]
    assert looks[-1] > 0.5 * looks[0]
    start, *_, end = [row["knn/accuracy@20"] for row in rows(result.folder / "evaluations.jsonl")]
    assert end > start + 0.03
    assert not (result.folder / "health.jsonl").exists()
    model = json.loads((result.export / "config.json").read_text())
    assert model["model_type"] == "vit"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augmentation": {"globals": {"count": 1}, "locals": None}}, "loss.vicreg.view: there is one \"global\" crop of an image, and two or more are compared"),
        ({"run": {"batch_size": 1}}, "loss.vicreg: looks at differences between images, and a step has one; enlarge run.batch_size"),
        ({"loss": {"dino": None, "vicreg": {"variance": 0.0}}}, "loss.vicreg.variance: without it all images get the same embedding; raise it"),
    ],
)  # fmt: skip
def test_what_has_nothing_to_compare_is_refused(toy, changes, message):
    with pytest.raises(ConfigError) as caught:
        api.plan(toy(**{**VICREG, **changes}), plugins=[plugin])
    assert message in str(caught.value).replace("config: ", "")
