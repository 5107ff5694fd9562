"""k-NN and linear evaluators."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from dinomx_core import ConfigError, DataError, api
from dinomx_core.builtin.evaluators.labelled import holdout
from dinomx_core.builtin.evaluators.linear import fit
from dinomx_core.builtin.evaluators.scores import auroc, balanced_accuracy
from tests.fixtures import rows

SETS = {"bank": {"name": "digits", "split": "train"}, "query": {"name": "digits", "split": "test"}}


def blobs(count, classes, spread=1.0, seed=0):
    """Overlapping clouds: features (count, 8) and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    centres = torch.randn(classes, 8, generator=torch.Generator().manual_seed(9))
    return centres[labels] + spread * torch.randn(count, 8, generator=generator), labels


def test_the_linear_layer_does_as_well_as_logistic_regression():
    (x, y), (queries, truth) = blobs(600, 4), blobs(400, 4, seed=1)
    weights, biases = fit(x, y, 4, [0.003, 0.1], 60, 256)
    assert weights.shape == (2, 8, 4) and biases.shape == (2, 1, 4)
    wanted = LogisticRegression(max_iter=500).fit(x.numpy(), y.numpy()).score(queries.numpy(), truth.numpy())
    found = float(((queries @ weights[1] + biases[1]).argmax(1) == truth).float().mean())
    assert wanted > 0.7 and found == pytest.approx(wanted, abs=0.02)


def test_learning_rates_swept_at_once_are_those_trained_alone():
    x, y = blobs(300, 3)
    together = fit(x, y, 3, [0.01, 0.3], 5, 256)
    for number, lr in enumerate((0.01, 0.3)):
        alone = fit(x, y, 3, [lr], 5, 256)
        torch.testing.assert_close(together[0][number], alone[0][0])
        torch.testing.assert_close(together[1][number], alone[1][0])


def test_figures_are_scikit_learns():
    x, y = blobs(200, 3, spread=2.0)
    probabilities = (x @ torch.randn(8, 3, generator=torch.Generator().manual_seed(1))).softmax(1)
    y = y.clone()
    y[y == 2] = torch.where(torch.arange(int((y == 2).sum())) % 3 == 0, 2, 0)  # unbalanced
    assert float(balanced_accuracy(probabilities.argmax(1), y)) == pytest.approx(
        balanced_accuracy_score(y, probabilities.argmax(1))
    )
    wanted = roc_auc_score(y.numpy(), probabilities.numpy(), multi_class="ovr", average="macro")
    assert auroc(probabilities, y) == pytest.approx(wanted)
    assert auroc(probabilities, torch.zeros(200, dtype=torch.int64)) == 0.5  # no other class: nothing to tell apart


def test_every_class_of_two_images_or_more_is_held_out_from_once():
    labels = torch.tensor([0] * 20 + [1] * 2 + [2])
    held = holdout(labels, 0.1)
    assert [int((held & (labels == c)).sum()) for c in (0, 1, 2)] == [2, 1, 0]


@pytest.mark.slow
def test_a_run_measures_both_at_the_start_and_the_end_and_repeats_itself(toy):
    config = toy(evaluate={"linear": {"every": "100%", "epochs": 5, **SETS}, "knn": {"every": 2, "k": [5], **SETS}})
    first = api.run(config)
    found = rows(first.folder / "evaluations.jsonl")
    assert [row["step"] for row in found] == [0, 2, 4]
    names = {"linear/accuracy", "linear/balanced_accuracy", "linear/auroc"}
    assert names <= set(found[0]) and names.isdisjoint(found[1]) and all(0 < found[0][name] <= 1 for name in names)
    assert 0.3 < found[0]["linear/accuracy"] < 1 and found[0]["linear/auroc"] > 0.8
    config["run"]["name"] = "again"
    assert api.run(config).figures == first.figures == {**first.figures, **{n: found[2][n] for n in names}}


@pytest.mark.slow
def test_evaluators_of_one_round_share_features(toy, monkeypatch):
    from dinomx_core.training import evaluation

    calls = []
    monkeypatch.setattr(
        evaluation, "_features", lambda *given, real=evaluation._features: calls.append(1) or real(*given)
    )
    api.run(toy(run={"steps": 1}, evaluate={"linear": {"epochs": 1, **SETS}, "knn": {"k": [5], **SETS}}))
    assert len(calls) == 4  # bank and query, at the start and at the end


def classes_on_disk(root, **counts):
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(np.random.default_rng(number).integers(0, 256, (16, 16), dtype=np.uint8)).save(
                root / name / f"{number}.png"
            )
    return {"name": "image-folder", "path": str(root), "channels": 1}


def test_sets_that_cannot_be_used_are_refused_with_place_and_remedy(toy, tmp_path):
    flat = classes_on_disk(tmp_path / "flat", **{".": 4})
    one = classes_on_disk(tmp_path / "one", cats=3)
    few = classes_on_disk(tmp_path / "few", cats=3, dogs=1)
    other = classes_on_disk(tmp_path / "other", cats=1, cows=1)
    cases = {
        ("linear", "bank"): (flat, few, "has no labels; a linear classifier needs a folder a class"),
        ("linear", "bank "): (
            one,
            one | {"path": one["path"] + "/."},
            "has one class only (cats); a classifier needs two",
        ),
        ("knn", "query"): (few, other, "has classes that the bank does not have: cows"),
        ("knn", "query "): (few, few, "is the bank itself: every image would find itself; name held-out images"),
        ("knn", "k"): (few, one, "the bank's 4 images are fewer than k = 10"),
    }
    for (name, key), (bank, query, message) in cases.items():
        with pytest.raises(ConfigError) as caught:
            api.plan(toy(evaluate={name: {"bank": bank, "query": query}}))
        assert f"evaluate.{name}.{key.strip()}: {message}" in str(caught.value)


def test_images_that_cannot_be_read_are_named_and_limited_in_evaluations_too(toy, tmp_path):
    bank, query = (
        classes_on_disk(tmp_path / "bank", cats=10, dogs=10),
        classes_on_disk(tmp_path / "query", cats=10, dogs=10),
    )
    (tmp_path / "query" / "cats" / "3.png").write_bytes(b"no image")
    config = toy(
        run={"steps": 1}, evaluate={"knn": {"k": [20], "bank": bank, "query": query}}, loader={"max_unreadable": 0.05}
    )
    folder = api.run(config).folder
    assert (
        (folder / "unreadable.txt").read_text().startswith(f"{tmp_path}/query/cats/3.png: cannot be read as an image")
    )
    (tmp_path / "query" / "cats" / "4.png").write_bytes(b"no image")
    with pytest.raises(
        DataError, match=r"2 of 20 images cannot be read, more than loader.max_unreadable = 0.05 allows: .*3.png"
    ):
        api.run(config, overwrite=True)
    (tmp_path / "bank" / "cats" / "4.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="only 19 images of the bank can be read, fewer than k = 20"):
        api.run({**config, "loader": {"workers": 0, "max_unreadable": 1.0}}, overwrite=True)


def test_what_an_evaluation_cannot_read_does_not_count_against_the_training_images(toy, tmp_path, image_folder):
    bank, query = (
        classes_on_disk(tmp_path / "bank", cats=9, dogs=9),
        classes_on_disk(tmp_path / "query", cats=60, dogs=60),
    )
    for number in range(3):
        (tmp_path / "query" / "cats" / f"{number}.png").write_bytes(b"no image")
    config = toy(
        data={"name": "image-folder", "path": str(image_folder), "channels": 1, "split": None},
        evaluate={"knn": {"every": 1, "k": [1], "bank": bank, "query": query}},
        loader={"max_unreadable": 0.1},  # 3 of 120 are fewer, 3 of the 12 training images would be more
    )
    folder = api.run(config).folder
    assert len((folder / "unreadable.txt").read_text().splitlines()) == 3


def test_one_image_a_class_and_large_holdouts_still_give_figures(toy, tmp_path):
    few, query = classes_on_disk(tmp_path / "few", cats=1, dogs=1), classes_on_disk(tmp_path / "query", cats=2, dogs=2)
    figures = api.run(toy(run={"steps": 1}, evaluate={"linear": {"bank": few, "query": query}})).figures
    assert 0 <= figures["linear/accuracy"] <= 1
    assert holdout(torch.tensor([0, 0, 1, 1]), 0.9).tolist() == [True, False, True, False]


def test_a_class_with_one_image_is_counted_and_named(toy, tmp_path):
    few, query = classes_on_disk(tmp_path / "few", cats=3, dogs=1), classes_on_disk(tmp_path / "query", cats=1, dogs=1)
    config = toy(
        run={"steps": 1},
        evaluate={"knn": {"k": [1], "bank": few, "query": query}, "linear": {"bank": few, "query": query, "epochs": 2}},
    )
    warnings = api.plan(config).warnings
    assert "evaluate.knn.bank: 1 of 2 classes have one image only: dogs" in warnings
    assert set(api.run(config).figures) == {
        "knn/accuracy@1",
        "knn/balanced_accuracy@1",
        "knn/auroc@1",
        "linear/accuracy",
        "linear/balanced_accuracy",
        "linear/auroc",
    }
