"""Labels that are several classes or a number: from files to figures."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import Ridge
from sklearn.metrics import average_precision_score, mean_absolute_error, r2_score, roc_auc_score
from sklearn.neighbors import KNeighborsRegressor

from dinomx_core import ConfigError, DataError, api
from dinomx_core.builtin import pack
from dinomx_core.builtin.columns import LIST, Column
from dinomx_core.builtin.evaluators.knn import shares
from dinomx_core.builtin.evaluators.linear import PENALTIES, fit, ridge
from dinomx_core.builtin.evaluators.scores import figures_of, ranks, spearman
from dinomx_core.builtin.labels import coded, label_at, several
from dinomx_core.training.construct import construct
from tests.fixtures import in_table, rows


def images_of(folder, count):
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)).save(folder / f"{number}.png")


def in_manifest(tmp_path, labels, name="m", **options):
    """A manifest with these labels as JSON lines; (DataInfo, items)."""
    images_of(tmp_path / "images", len(labels))
    lines = [json.dumps({"path": f"images/{n}.png", "y": label}) for n, label in enumerate(labels)]
    (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    return {"name": "manifest", "path": str(tmp_path / f"{name}.jsonl"), "label": "y", "channels": 1, **options}


def opened(table):
    chosen = in_table("dataset", table)
    return chosen.component.inspect(chosen.options), construct(chosen)


def test_a_manifest_names_several_classes_in_lists_or_texts(tmp_path):
    table = in_manifest(tmp_path, [["oedema", "cyst"], [], ["cyst"], None], label_kind="classes")
    info, data = opened(table)
    assert (info.classes, info.label_kind, info.labelled) == (("cyst", "oedema"), "classes", True)
    assert info.notes == ("1 of 4 images have no label",)
    assert [data[n].label for n in range(4)] == [(0, 1), (), (0,), None]
    (tmp_path / "m.csv").write_text(
        "path,y\nimages/0.png,oedema| cyst\nimages/1.png,|\nimages/2.png,cyst\nimages/3.png,\n"
    )
    _, again = opened({**table, "path": str(tmp_path / "m.csv"), "separator": "|"})
    assert [again[n].label for n in range(4)] == [(0, 1), (), (0,), None]


def test_a_manifest_has_numbers(tmp_path):
    info, data = opened(in_manifest(tmp_path, [3, 2.5, None], label_kind="number"))
    assert (info.classes, info.label_kind, info.labelled, info.notes) == (
        (),
        "number",
        True,
        ("1 of 3 images have no label",),
    )
    assert [data[n].label for n in range(3)] == [3.0, 2.5, None]


def test_labels_of_another_kind_are_named_by_their_line(tmp_path):
    with pytest.raises(DataError) as caught:
        opened(in_manifest(tmp_path, ["1", "many", "2"], label_kind="number"))
    assert (
        str(caught.value) == f'{tmp_path}/m.jsonl: column "y" holds no number in line 2' and caught.value.key == "label"
    )
    with pytest.raises(DataError) as caught:
        opened(in_manifest(tmp_path, [["a"], [1.5]], label_kind="classes"))
    assert str(caught.value) == f'{tmp_path}/m.jsonl: column "y" holds no text in line 2'
    with pytest.raises(DataError) as caught:
        opened(in_manifest(tmp_path, [[], []], label_kind="classes"))
    assert str(caught.value) == f'{tmp_path}/m.jsonl: column "y" names no class in any line'


@pytest.mark.parametrize(
    ("kind", "labels"), [("classes", [["b", "a"], [], ["c"], None]), ("number", [1.25, 7, -1e-3, None])]
)
def test_packed_labels_are_read_as_they_were(tmp_path, kind, labels):
    info, data = opened(in_manifest(tmp_path, labels, label_kind=kind))
    pack.pack(data, info, tmp_path / "tars", 3)
    packed, samples = opened({"name": "shards", "path": str(tmp_path / "tars")})
    assert (packed.classes, packed.label_kind) == (info.classes, kind)
    assert [samples[n].label for n in range(4)] == [data[n].label for n in range(4)]


def test_lists_in_tars_are_no_class_unless_asked_for():
    column = Column(np.array([0, 1, -1]), (LIST + '["a", "b"]', "b"))
    classes, labels = coded(column, "class", ";", ())
    assert (classes, labels.tolist()) == (("b",), [-1, 0, -1])
    classes, labels = coded(column, "classes", ";", ())
    assert (classes, [label_at(labels, n) for n in range(3)]) == (("a", "b"), [(0, 1), (1,), None])


def test_hugging_face_rows_have_lists_of_classes_and_numbers(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "image": datasets.Array2D((4, 4), "uint8"),
            "findings": datasets.Sequence(datasets.ClassLabel(names=["mass", "nodule"])),
            "age": datasets.Value("float32"),
        }
    )
    table = {"image": [np.zeros((4, 4), np.uint8)] * 3, "findings": [[1, 0], [], None], "age": [30.5, 40.0, None]}
    datasets.Dataset.from_dict(table, features=features).save_to_disk(str(tmp_path / "rows"))
    base = {"name": "hf-dataset", "path": str(tmp_path / "rows")}
    info, data = opened({**base, "label": "findings", "label_kind": "classes"})
    assert (info.classes, info.label_kind) == (("mass", "nodule"), "classes")
    assert [data[n].label for n in range(2)] == [(0, 1), ()]
    info, data = opened({**base, "label": "age", "label_kind": "number"})
    assert [data[n].label for n in range(3)] == [30.5, 40.0, None]
    with pytest.raises(DataError) as caught:
        opened({**base, "label": "findings"})
    assert str(caught.value).endswith("expected one text or whole number a row, or another label_kind")


def test_a_mix_keeps_labels_of_one_kind_and_drops_those_of_several(tmp_path):
    one = in_manifest(tmp_path, [["b"], ["a", "b"]], "one", label_kind="classes")
    two = in_manifest(tmp_path, [["c", "a"], []], "two", label_kind="classes")
    number = in_manifest(tmp_path, [1, 2], "three", label_kind="number")
    info, data = opened({"name": "mix", "sources": {"one": one, "two": two}})
    assert (info.classes, info.label_kind) == (("a", "b", "c"), "classes")
    assert [data[n].label for n in range(4)] == [(1,), (0, 1), (0, 2), ()]
    info, data = opened({"name": "mix", "sources": {"one": one, "three": number}})
    assert not info.labelled and [data[n].label for n in (0, 2)] == [None, None]
    info, data = opened({"name": "mix", "sources": {"three": number}})
    assert info.labelled and data[1].label == 2.0


def noisy(count, seed=0):
    """Features (count, 6), three classes that overlap, and a number."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 6, generator=generator)
    noise = torch.randn(count, 4, generator=generator)
    return x, (x[:, :3] + 0.7 * noise[:, :3] > 0.3), (x[:, 0] - 2 * x[:, 1] + 0.5 * noise[:, 3]).double()


def test_figures_of_several_classes_are_scikit_learns():
    _, truth, _ = noisy(200)
    scores = torch.rand(200, 3, generator=torch.Generator().manual_seed(1))
    found = figures_of(scores, truth, "@5")
    assert found["map@5"] == pytest.approx(average_precision_score(truth.numpy(), scores.numpy(), average="macro"))
    assert found["auroc@5"] == pytest.approx(roc_auc_score(truth.numpy(), scores.numpy(), average="macro"))
    truth[:, 1] = False  # a class that no image has says nothing
    wanted = average_precision_score(truth[:, ::2].numpy(), scores[:, ::2].numpy(), average="macro")
    assert figures_of(scores, truth)["map"] == pytest.approx(wanted)


def test_figures_of_numbers_are_scikit_learns_and_the_error_is_information():
    x, _, truth = noisy(100)
    told = x[:, 0].double()
    found = figures_of(told, truth)
    assert found["r2"] == pytest.approx(r2_score(truth, told))
    assert found["info/mae"] == pytest.approx(mean_absolute_error(truth, told))
    assert spearman(truth.exp(), truth) == pytest.approx(1) and spearman(-truth, truth) == pytest.approx(-1)
    assert ranks(torch.tensor([5.0, 1.0, 5.0])).tolist() == [2.5, 1.0, 2.5]
    assert spearman(torch.ones(3), torch.arange(3.0)) == 0 and figures_of(told, torch.ones(100).double())["r2"] == 0


def test_votes_of_neighbours_are_shares_and_means():
    votes = torch.tensor([[1.0, 3.0]])
    several_classes = torch.tensor([[[True, False], [True, True]]])
    assert shares(votes, several_classes, 2).tolist() == [[1.0, 0.75]]
    assert shares(votes, torch.tensor([[10.0, 2.0]]).double(), 0).tolist() == [4.0]
    x, _, y = noisy(50)
    cosine, neighbours = torch.eye(50).topk(1)
    wanted = KNeighborsRegressor(1).fit(x, y).predict(x)
    assert np.allclose(shares(cosine.exp(), y[neighbours], 0), wanted)


def test_one_layer_tells_each_of_several_classes_from_the_rest():
    (x, y, _), (queries, truth, _) = noisy(600), noisy(400, 1)
    weights, biases = fit(x, y, 3, [0.1], 40, 256)
    found = figures_of(queries @ weights[0] + biases[0], truth)
    best = figures_of(queries[:, :3], truth)  # the noise alone stands between these and the classes
    assert found["auroc"] == pytest.approx(best["auroc"], abs=0.02) and found["auroc"] > 0.8


def test_ridge_regressions_are_scikit_learns():
    (x, _, y), (queries, _, _) = noisy(300), noisy(50, 1)
    weights, biases = ridge(x, y)
    assert weights.shape == (len(PENALTIES), 6, 1) and biases.shape == (len(PENALTIES), 1, 1)
    for number, penalty in enumerate(PENALTIES):
        wanted = Ridge(alpha=penalty * 300).fit(x.double().numpy(), y.numpy()).predict(queries.double().numpy())
        assert np.allclose((queries.double() @ weights[number] + biases[number])[:, 0], wanted)


def test_several_classes_need_a_name():
    assert several([None, []], ())[0] == ()


def known(tmp_path, kind, count=40):
    """Bank and query of images whose brightness tells their label."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    values = rng.integers(20, 230, count)
    for number, value in enumerate(values):
        Image.fromarray((value + rng.integers(-9, 9, (16, 16))).astype(np.uint8)).save(
            tmp_path / f"images/{number}.png"
        )
    label = {
        "class": lambda v: "bright" if v > 120 else "dark",
        "classes": lambda v: [name for name, low in (("light", 120), ("white", 170)) if v > low],
        "number": lambda v: float(v),
    }[kind]
    sets = {}
    for name, which in (("bank", range(0, count, 2)), ("query", range(1, count, 2))):
        lines = (json.dumps({"path": f"images/{n}.png", "y": label(int(values[n]))}) for n in which)
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
        sets[name] = {"name": "manifest", "path": str(tmp_path / f"{name}.jsonl"), "label": "y", "label_kind": kind}
        sets[name]["channels"] = 1
    return sets


NAMES = {
    "class": {"knn/accuracy@3", "knn/balanced_accuracy@3", "knn/auroc@3", "linear/accuracy", "linear/balanced_accuracy", "linear/auroc",
              "logistic/accuracy", "logistic/balanced_accuracy", "logistic/auroc"},
    "classes": {"knn/map@3", "knn/auroc@3", "linear/map", "linear/auroc", "logistic/map", "logistic/auroc"},
    "number": {"knn/r2@3", "knn/spearman@3", "knn/info/mae@3", "linear/r2", "linear/spearman", "linear/info/mae"},
}  # fmt: skip


@pytest.mark.parametrize("kind", ["class", "classes", "number"])
def test_a_run_measures_labels_of_each_kind(toy, tmp_path, kind):
    sets = known(tmp_path, kind)
    evaluate = {"knn": {"k": [3], **sets}, "linear": {"epochs": 20, "batch_size": 8, **sets}}
    if kind != "number":
        evaluate["logistic"] = {"C": [0.1, 1.0], **sets}
    result = api.run(toy(run={"steps": 1}, evaluate=evaluate))
    assert set(result.figures) == NAMES[kind] and set(rows(result.folder / "evaluations.jsonl")[0]) > NAMES[kind]
    for name, value in result.figures.items():  # brightness is seen by any features
        assert value > (0.7 if "info" not in name else 0), name
    if kind == "number":
        assert result.figures["knn/info/mae@3"] < 30


def test_looking_at_data_counts_each_of_several_classes(toy, tmp_path):
    table = in_manifest(tmp_path, [["b", "a"], [], ["a"], None] * 3, label_kind="classes")
    report = api.measure(toy(data={**table, "split": None}), out=tmp_path / "report", pictures=False)
    assert report["classes"] == [
        {"name": "no label", "images": 3}, {"name": "a", "images": 6}, {"name": "b", "images": 3},
    ]  # fmt: skip


def refused(config):
    with pytest.raises(ConfigError) as caught:
        api.plan(config)
    return [str(problem) for problem in caught.value.problems]


def test_kinds_that_do_not_fit_are_refused(toy, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    classes, numbers = known(tmp_path / "a", "class"), known(tmp_path / "b", "number")
    assert refused(toy(evaluate={"logistic": numbers})) == [
        f"config: evaluate.logistic.{name}: has labels that are numbers; logistic regression needs classes: take `knn` and `linear` for these"
        for name in ("bank", "query")
    ]
    assert refused(toy(evaluate={"knn": {"k": [3], "bank": classes["bank"], "query": numbers["query"]}})) == [
        "config: evaluate.knn.query: has labels that are numbers, those of the bank are a class each; give both the same label_kind"
    ]
    assert refused(toy(evaluate={"clustering": {"data": numbers["bank"]}})) == [
        "config: evaluate.clustering.clusters: is not known, since the images have labels that are numbers; give a number"
    ]
    best = toy(evaluate={"knn": {"k": [3], **numbers}}, checkpoint={"keep_best": "knn/info/mae@3"})
    assert refused(best) == [
        'config: checkpoint.keep_best: "knn/info/mae@3" is told beside the figures, and more of it is not better; name a figure'
    ]


def test_errors_that_grow_are_no_reason_for_a_verdict():
    from types import SimpleNamespace

    from dinomx_core.training.health import Health

    health = Health(SimpleNamespace(steps=10), warm=True)
    assert health.evaluated(0, {"knn/r2@5": 0.9, "knn/info/mae@5": 3.0}) == []
    assert health.evaluated(5, {"knn/r2@5": 0.9, "knn/info/mae@5": 1.0}) == []
    assert health.evaluated(10, {"knn/r2@5": 0.9, "knn/info/mae@5": 1.0}) == []
    assert [v.name for v in health.evaluated(10, {"knn/r2@5": 0.1, "knn/info/mae@5": 9.0})] == ["worse than the start"]
