"""Evaluators on one set of images: clusters, rank, robustness."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import silhouette_score

from dinomx_core import ConfigError, DataError, api
from dinomx_core.builtin.evaluators.clustering import clustered
from dinomx_core.builtin.evaluators.rankme import EPSILON, rankme
from dinomx_core.builtin.evaluators.robustness import RobustnessEvaluator, shifted
from dinomx_core.builtin.single import SingleProcess
from dinomx_core.declare.facts import Preprocessing
from dinomx_core.training.construct import construct
from dinomx_core.training.contracts import Encoder
from dinomx_core.training.flow import Item, Tokens
from tests.fixtures import in_table, rows

DIGITS = {"name": "digits", "split": "test"}


def encoder_of(features):
    """An encoder whose features of images are what a function makes of their pixels (B, C, H, W)."""

    def encode(items):
        found = features(torch.stack([item.image.float() for item in items]))
        return Tokens(found, torch.empty(len(found), 0, found.shape[1]), found[:, None], (1, 1, 1))

    how = Preprocessing(8, 8, (0.0,), (1.0,))
    return Encoder(None, how, 1, SingleProcess(None, torch.device("cpu")), lambda item: item, encode, lambda *_: None)


def evaluator(table):
    return construct(in_table("evaluator", table))


def test_clusters_that_stand_apart_are_found_and_compared_with_classes():
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3
    vectors = np.eye(8)[labels] + 0.05 * generator.normal(size=(60, 8))
    found = clustered(vectors, tuple(labels.tolist()), 3)
    assert found["ami"] == pytest.approx(1) and found["silhouette"] == pytest.approx(silhouette_score(vectors, labels))
    assert found["silhouette"] > 0.8
    chance = clustered(vectors, tuple(generator.integers(0, 3, 60).tolist()), 3)
    assert abs(chance["ami"]) < 0.1 and chance["silhouette"] == found["silhouette"]
    assert clustered(vectors, (None,) * 60, 3) == {"silhouette": found["silhouette"]}
    half = clustered(vectors, tuple(int(n) if i % 2 else None for i, n in enumerate(labels)), 3)
    assert half["ami"] == pytest.approx(1)
    assert clustered(np.ones((10, 4)), (0,) * 10, 3)["silhouette"] == 0


def test_the_silhouette_of_many_images_is_that_of_some_and_the_same_every_time():
    vectors = np.random.default_rng(0).normal(size=(2100, 2))
    one, other = (clustered(vectors, (None,) * 2100, 4) for _ in range(2))
    assert one == other


def test_rankme_is_the_formula_of_the_paper():
    def of(spectrum, rows=50):
        generator = torch.Generator().manual_seed(0)
        left, _ = torch.linalg.qr(torch.randn(rows, len(spectrum), generator=generator, dtype=torch.float64))
        right, _ = torch.linalg.qr(torch.randn(len(spectrum), len(spectrum), generator=generator, dtype=torch.float64))
        return rankme(left @ torch.diag(torch.tensor(spectrum, dtype=torch.float64)) @ right)

    assert of([2.0] * 7) == pytest.approx(7, rel=1e-5)
    assert of([5.0, 0, 0, 0]) == pytest.approx(1, abs=1e-4)
    spectrum = [4.0, 2.0, 1.0, 1.0]
    shares = [value / 8 + EPSILON for value in spectrum]
    assert of(spectrum) == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)), rel=1e-9)
    assert rankme(torch.zeros(5, 3)) == pytest.approx(1, abs=1e-4)


def test_rankme_takes_images_evenly_and_tells_of_what():
    found = evaluator({"name": "rankme", "data": DIGITS, "images": 40}).evaluate(encoder_of(lambda x: x.flatten(1)))
    assert found["info/dimension"] == 64 and found["info/images"] == 40 and 5 < found["rankme"] < 40


def test_features_that_see_only_what_flips_and_turns_keep_are_robust_to_them():
    mean = evaluator({"name": "robustness", "data": DIGITS, "images": 20})
    found = mean.evaluate(encoder_of(lambda x: torch.stack([x.mean((1, 2, 3)), x.amax((1, 2, 3))], 1)))
    assert set(found) == {"flip", "rotation", "intensity"}
    assert found["flip"] == pytest.approx(1) and found["rotation"] == pytest.approx(1) and found["intensity"] < 0.9999


def test_a_feature_that_a_flip_turns_round_says_so():
    left = torch.linspace(-1, 1, 8)
    odd = encoder_of(lambda x: torch.stack([(x * left).mean((1, 2, 3)), x.new_zeros(len(x))], 1))
    found = evaluator({"name": "robustness", "data": DIGITS, "images": 20, "rotation": [180]}).evaluate(odd)
    assert found["flip"] == pytest.approx(-1) and found["rotation"] == pytest.approx(-1)
    assert found["intensity"] > 0


def test_intensity_is_changed_around_the_mean_and_by_deviations():
    image = torch.tensor([[[10.0, 30.0]]])
    assert shifted(image, 1.5, 0.0, False).tolist() == [[[5.0, 35.0]]]
    assert shifted(image, 1.0, 0.5, False).tolist() == [[[15.0, 35.0]]]
    assert shifted(torch.tensor([[[0.0, 1.0]]]), 1.2, 0.0, True).tolist() == [[[0.0, 1.0]]]
    variants = RobustnessEvaluator(in_table("evaluator", {"name": "robustness", "data": DIGITS}).options)
    names = [name for name, _ in variants.changed(Item(torch.zeros(3, 4, 6, dtype=torch.uint16)))]
    assert names == ["flip"] + ["rotation"] * 3 + ["intensity"] * 4


EVALUATE = {
    "clustering": {"data": DIGITS},
    "robustness": {"data": DIGITS, "images": 30},
    "rankme": {"every": 2, "data": DIGITS},
}


@pytest.mark.slow
def test_a_run_has_their_figures_and_keeps_the_checkpoint_of_the_largest_rank(toy):
    result = api.run(toy(evaluate=EVALUATE, checkpoint={"keep_best": "rankme/rankme"}))
    figures = {
        "clustering/silhouette", "clustering/ami", "robustness/flip", "robustness/rotation", "robustness/intensity",
        "rankme/rankme", "rankme/info/dimension", "rankme/info/images",
    }  # fmt: skip
    assert set(result.figures) == figures
    kept = json.loads((result.folder / "checkpoints" / "best" / "manifest.json").read_text())
    found = {
        row["step"]: row["rankme/rankme"] for row in rows(result.folder / "evaluations.jsonl") if "rankme/rankme" in row
    }
    assert len(found) == 3 and kept["figure"] == "rankme/rankme"
    assert (kept["step"], kept["value"]) == max(found.items(), key=lambda item: item[1])


def test_evaluators_of_one_set_share_features_with_those_of_labels(toy, monkeypatch):
    from dinomx_core.training import evaluation

    calls = []
    monkeypatch.setattr(
        evaluation, "_features", lambda *given, real=evaluation._features: calls.append(1) or real(*given)
    )
    knn = {"k": [5], "bank": {"name": "digits", "split": "train"}, "query": DIGITS}
    api.run(toy(run={"steps": 1}, evaluate={"rankme": {"data": DIGITS}, "knn": knn, "clustering": {"data": DIGITS}}))
    assert len(calls) == 4  # two sets, at the start and at the end


def test_what_they_cannot_do_is_refused(toy, tmp_path):
    (tmp_path / "flat").mkdir()
    for number in range(4):
        Image.fromarray(np.full((16, 16), number, np.uint8)).save(tmp_path / "flat" / f"{number}.png")
    flat = {"name": "image-folder", "path": str(tmp_path / "flat"), "channels": 1}
    cases = {
        "clusters: is not known, since the images have no labels; give a number": {"data": flat},
        "clusters: 4 of 4 images; give fewer": {"data": flat, "clusters": 4},
        "clusters: must be 0, or 2 or more, got 1": {"data": flat, "clusters": 1},
    }
    for message, options in cases.items():
        with pytest.raises(ConfigError) as caught:
            api.plan(toy(evaluate={"clustering": options}))
        assert str(caught.value) == f"config: evaluate.clustering.{message}"
    with pytest.raises(ConfigError) as caught:
        api.plan(toy(evaluate={"robustness": {"data": DIGITS, "rotation": [90, 45]}}))
    assert (
        str(caught.value)
        == "config: evaluate.robustness.rotation: must be one or more of 90, 180 and 270, got [90, 45]"
    )


def test_too_few_readable_images_for_the_clusters_are_told(toy, tmp_path):
    for number in range(4):
        Image.fromarray(np.full((16, 16), number, np.uint8)).save(tmp_path / f"{number}.png")
    data = {"name": "image-folder", "path": str(tmp_path), "channels": 1, "labels": "none"}
    config = toy(
        run={"steps": 1}, evaluate={"clustering": {"data": data, "clusters": 3}}, loader={"max_unreadable": 1.0}
    )
    api.plan(config)
    (tmp_path / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError) as caught:
        api.run(config)
    assert str(caught.value) == "only 3 images can be read, too few for 3 clusters"
