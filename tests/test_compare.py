"""`dinomx compare`: figures against ones made by hand, and what it warns of."""

import json
from statistics import mean, stdev

import pytest
from typer.testing import CliRunner

from dinomx_core import ConfigError, DataError, api
from dinomx_core.cli import app

VALUES = {
    "run.seed": 0, "run.name": "x", "run.steps": 4, "data.name": "digits",
    "optimizer.lr.peak": 1e-3, "optimizer.lr.start": 1e-3, "optimizer.lr.shape": "constant",
    "optimizer.clip": 0.0, "log.every": 10,
    "evaluate.knn.name": "knn", "evaluate.knn.every": 2, "evaluate.knn.query.name": "digits", "evaluate.knn.query.split": "test",
}  # fmt: skip
VERSIONS = {"dinomx": "0.1.0", "torch": "2.13.0"}


@pytest.fixture
def made(tmp_path):
    """A function that writes a run folder: values that differ from those above, figures by step, steps that were done, parts of the
    plan that differ."""

    def write(name, values=None, figures=None, done=4, seconds=9.0, **plan):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        told = {key: {"value": value, "source": ""} for key, value in {**VALUES, **(values or {})}.items()}
        about = {
            "values": told, "steps": 4, "stage": "", "device": "cpu", "batch": {"images": 8, "world_size": 1},
            "data": {"count": 10, "digest": "a"}, "env": {"versions": VERSIONS},
        }  # fmt: skip
        (folder / "plan.json").write_text(json.dumps({**about, **plan}))
        steps = [{"step": step, "seconds": seconds} for step in range(done)]
        figures = {0: {"knn/a": 0.25, "knn/b": 0.5}, 4: {"knn/a": 0.5, "knn/b": 0.25}} if figures is None else figures
        evaluations = [{"step": step, **row, "seconds": 2.0} for step, row in figures.items()]
        for file, found in (("metrics", steps), ("evaluations", evaluations)):
            (folder / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
        return folder

    return write


def lr(value, seed=0, **more):
    return {"optimizer.lr.peak": value, "optimizer.lr.start": value, "run.seed": seed, **more}


def at_end(value):
    return {0: {"knn/a": 0.1}, 4: {"knn/a": value}}


FOUR = {(1e-3, 0): 0.5, (1e-3, 1): 0.7, (1e-4, 0): 0.2, (1e-4, 1): 0.3}


@pytest.fixture
def four(made):
    """Two learning rates with two seeds each."""
    return [made(f"{rate}-{seed}", lr(rate, seed), at_end(value)) for (rate, seed), value in FOUR.items()]


def test_means_spreads_and_costs_are_those_worked_out_by_hand(four):
    found = api.compare(four)
    assert found.by == ["optimizer.lr"] and found.differing == {"optimizer.lr": [1e-3, 1e-4]} and found.warnings == []
    first, second = found.groups
    assert (first.keys, [run.seed for run in first.runs]) == ({"optimizer.lr": 1e-3}, [0, 1])
    assert (first.figures["knn/a"].mean, first.figures["knn/a"].spread) == (mean([0.5, 0.7]), stdev([0.5, 0.7]))
    assert second.figures["knn/a"].mean == pytest.approx(0.25) and second.figures["knn/a"].spread == pytest.approx(
        0.05 * 2**0.5
    )
    assert first.images == (32, 32) and first.hours == (4 * 9 + 2 * 2) / 3600 and first.places == ["1 cpu"]
    assert first.budget is None and first.steps == [4, 4]
    assert json.loads(json.dumps(found.to_json()))["groups"][1]["figures"]["knn/a"]["values"] == [0.2, 0.3]


def test_the_best_step_is_that_of_the_first_figure_the_others_are_told_there(made):
    rows = {
        0: {"knn/a": 0.1, "knn/b": 0.9, "rank/r": 3},
        2: {"knn/a": 0.8, "knn/b": 0.3, "rank/r": 2},
        4: {"knn/a": 0.8, "knn/b": 0.4},
    }
    values = {
        "evaluate.rank.name": "rankme",
        "evaluate.rank.data.name": "digits",
        "evaluate.rank.data.split": "held-out",
    }
    runs = [
        made("x", lr(1, 0, **values), rows),
        made("y", lr(1, 1, **values), {**rows, 4: {"knn/a": 0.9, "knn/b": None}}),
    ]
    found = api.compare(runs, figures=["knn/a", "knn/b", "rank/r"], at="best")
    (group,) = found.groups
    assert group.steps == [2, 4] and group.figures["knn/a"].values == [0.8, 0.9]
    assert group.figures["knn/b"].values == [0.3] and group.figures["rank/r"].values == [2]
    assert found.warnings == [
        "each run's step was chosen by its best knn/a, so knn/a, knn/b of the same query images are too good; choose by a figure of "
        "other images, or take --at last"
    ]
    by_rank = api.compare(runs, figures=["rank/r", "knn/a"], at="best")
    assert by_rank.groups[0].figures["knn/a"].values == [0.1, 0.1] and "so rank/r of the same" in by_rank.warnings[0]


def test_runs_are_never_told_apart_by_their_seed_or_by_what_computes_nothing(made):
    runs = [
        made("x", lr(1, 0)),
        made("y", lr(1, 1, **{"run.name": "y", "log.every": 3, "run.threads": 2, "evaluate.knn.every": 1})),
    ]
    found = api.compare(runs)
    assert (found.by, len(found.groups), found.differing, found.warnings) == ([], 1, {}, [])


def test_groups_by_one_key_say_what_else_differs(made):
    runs = [made(f"{rate}-{clip}", lr(rate, **{"optimizer.clip": clip})) for rate in (1, 2) for clip in (0.5, 1.5)]
    found = api.compare(runs, by=["optimizer.lr"])
    assert [group.keys for group in found.groups] == [{"optimizer.lr": 1}, {"optimizer.lr": 2}]
    assert found.warnings == [
        "runs of one group differ in more than their seed (optimizer.clip): its spread is not that of seeds"
    ]
    both = api.compare(runs, by=["optimizer"])
    assert both.by == ["optimizer.lr", "optimizer.clip"] and len(both.groups) == 4
    other = api.compare([runs[0], runs[3]], by=["optimizer.clip"])
    assert other.differing == {"optimizer.lr": [1, 2], "optimizer.clip": [0.5, 1.5]}


UNFAIR = {
    "steps": (
        ({"run.steps": 8}, {"steps": 8, "done": 8}),
        "the runs saw different numbers of images (32 to 64): what is compared is the training, too",
    ),
    "options of an evaluation": (
        ({"evaluate.knn.query.split": "all"}, {}),
        "the figures of knn are of different evaluations: evaluate.knn.query.split differ",
    ),
    "images": (
        ({}, {"data": {"count": 11, "digest": "b"}}),
        "the training images are not the same ones (10, 11 of them), though [data] is",
    ),
    "versions": (
        ({}, {"env": {"versions": {**VERSIONS, "torch": "2.6.0"}}}),
        "the runs are of different versions of torch: 2.13.0, 2.6.0",
    ),
    "devices": (({}, {"device": "cuda"}), "the runs are of different devices (cpu, cuda): hours do not compare"),
    "unfinished": (({}, {"done": 3}), "not finished: {}/c (3 of 4 steps)"),
    "seeds": (({"run.seed": 7}, {}), "the groups have different seeds"),
    "no figure": (({}, {"figures": {4: {"knn/b": 1}}}), "knn/a is missing in 1 of 4 runs: {}/c"),
}


@pytest.mark.parametrize("what", UNFAIR)
def test_what_is_unfair_is_told(made, tmp_path, what):
    (values, plan), told = UNFAIR[what]
    runs = [
        made("a", lr(1, 0)),
        made("b", lr(1, 1)),
        made("c", lr(2, 0, **values), **plan),
        made(
            "d",
            lr(2, 1, **({} if what == "seeds" else values)),
            **({} if what in ("unfinished", "no figure") else plan),
        ),
    ]
    found = api.compare(runs, by=["optimizer.lr"])
    assert told.format(tmp_path) in found.warnings
    assert len(found.warnings) == (2 if what == "unfinished" else 1)  # fewer images, too


def test_other_numbers_of_seeds_one_seed_alone_and_one_run_twice_are_told(made, tmp_path):
    a, b, c = made("a", lr(1, 0)), made("b", lr(1, 1)), made("c", lr(2, 0))
    assert api.compare([a, b, c]).warnings == ["the groups have different numbers of runs (2, 1)"]
    assert api.compare([a, c]).warnings == ["one run a group: a difference may be the seed's; take three seeds or more"]
    again = made("again", lr(1, 0))
    assert api.compare([a, again]).warnings == [
        f"one run several times (the same values and seed), which tells nothing of the spread: {a}, {again}"
    ]
    assert len(api.compare([a, tmp_path / "b" / ".." / "a"]).groups[0].runs) == 1


def sweep_of(folder, runs, grid):
    (folder / "sweep.json").write_text(json.dumps({"grid": grid, "seeds": [0], "runs": [
        {"name": name, "values": values, "seed": 0} for name, values in runs
    ]}))  # fmt: skip


def test_a_sweep_stands_for_its_runs_and_its_budget_is_told(made, tmp_path):
    for number in (1, 2, 3):
        made(f"s/r{number}", lr(number))
    sweep_of(
        tmp_path / "s",
        [(f"r{n}", {"optimizer.lr": str(n)}) for n in (1, 2, 3, 4)],
        {"optimizer.lr": ["1", "2", "3", "4"]},
    )
    found = api.compare(tmp_path / "s")
    assert len(found.groups) == 3 and found.groups[0].to_json()["tried"] == {"combinations": 3, "runs": 3}
    assert f"not begun, and left out: {tmp_path}/s/r4" in found.warnings
    other = made("alone", {"optimizer.clip": 1.0})
    best = api.compare([tmp_path / "s" / "r2", other])
    assert "the groups had different tuning budgets (3, 1 combinations tried): tune each as much" in best.warnings


def test_of_stages_the_last_is_compared_and_all_are_paid_for(made, tmp_path):
    for name, seed in (("x", 0), ("y", 1)):
        made(f"{name}/zero", {"run.seed": seed, "optimizer.clip": float(seed)}, {4: {"knn/a": 0.9}}, stage="zero")
        made(f"{name}/one", {"run.seed": seed}, {4: {"knn/a": 0.1 + seed}}, stage="one")
        for stage in ("zero", "one"):
            (tmp_path / name / stage / "config.toml").write_text(
                '[[stage]]\nname = "zero"\n[[stage]]\nname = "one"\n[[stage]]\nname = "two"\n'
            )
    found = api.compare([tmp_path / "x", tmp_path / "y"])
    assert [group.figures["knn/a"].mean for group in found.groups] == [0.1, 1.1]
    assert found.by == ["stage.zero.optimizer.clip"] and found.groups[0].images == (64, 64)
    told = "4 of 4 steps; without the stages two"
    assert f"not finished: {tmp_path}/x ({told}), {tmp_path}/y ({told})" in found.warnings
    alone = api.compare([tmp_path / "x" / "one"])
    assert alone.groups[0].images == (32, 32) and alone.groups[0].figures["knn/a"].mean == 0.1


def test_bad_input_says_what_there_is(made, tmp_path):
    run, other = made("a", lr(1), {4: {"knn/a": 1, "knn/b": 2, "knn/info/mae": 3}}), made("b", lr(2))
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "plan.json").write_text("{}")
    (run / "export").mkdir()
    for path, told in {
        tmp_path / "empty": "is no run folder (no plan.json in it)",
        tmp_path / "none": "is no run folder (no plan.json in it); there is nothing of that name",
        run / "export": f"is no run folder (no plan.json in it); it is a part of the run {run}",
    }.items():
        with pytest.raises(DataError) as error:
            api.compare([run, path])
        assert str(error.value) == f"{path}: {told}"
    with pytest.raises(DataError) as error:
        api.compare(tmp_path / "broken")
    assert (
        str(error.value)
        == f"{tmp_path}/broken/plan.json: cannot be read as a plan (it misses something); leave the run out"
    )
    (tmp_path / "broken" / "plan.json").unlink()
    with pytest.raises(DataError) as error:
        api.compare(tmp_path)
    assert str(error.value) == f"{tmp_path}: is no run folder (no plan.json in it); it holds the runs a, b: name them"
    for words, told in (
        ({"figures": ["knn/c"]}, '--figure: no run has the figure "knn/c"; there are: knn/a, knn/b, knn/info/mae'),
        ({"by": ["optimizer.lrr"]}, '--by: no run has the key "optimizer.lrr"; did you mean "optimizer.lr"?'),
        ({"by": ["zzz"]}, '--by: no run has the key "zzz"; they differ in: optimizer.lr'),
        ({"by": ["run.seed"]}, "--by: runs that differ in their seed alone are of one group; name another key"),
        (
            {"at": "best", "figures": ["knn/info/mae", "knn/a"]},
            '--at: more of "knn/info/mae" is not better, so it chooses no step; name a figure first',
        ),
        ({"at": "first"}, '--at: expected last or best, got "first"'),
    ):
        with pytest.raises(ConfigError) as error:
            api.compare([run, other], **words)
        assert str(error.value) == told
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(DataError, match=r"sweep.json: cannot be read as a sweep \('runs'\); bring it back"):
        api.compare(tmp_path)


TOLD = """\
mean ± sample standard deviation over runs, at the end; images and hours of a run
group  lr      n  knn/a            images  hours   processes  tried
1      0.001   2  0.6000 ± 0.1414  32      0.0111  1 cpu      -
2      0.0001  2  0.2500 ± 0.0707  32      0.0111  1 cpu      -
differ in
  optimizer.lr  0.001 (1)  0.0001 (2)
"""


def test_the_command_prints_a_table_and_warnings(four, made):
    assert CliRunner().invoke(app, ["compare", *map(str, four)]).stdout == TOLD
    half = made("half", lr(1e-4, 2), {0: {"knn/a": None}}, done=2)
    told = CliRunner().invoke(app, ["compare", *map(str, four), str(half), "--by", "optimizer.lr"]).stdout
    assert "2      0.0001  3  0.2500 ± 0.0707 (2 of 3)  16-32 " in told
    assert f"\nwarning: not finished: {half} (2 of 4 steps)\n" in told
    found = json.loads(CliRunner().invoke(app, ["compare", *map(str, four), "--json"]).stdout)
    assert found["spread"] == "sample standard deviation" and found["groups"][0]["n"] == 2
    missing = CliRunner().invoke(app, ["compare", str(made("bare", figures={}))]).stdout.splitlines()
    assert missing[1:] == [
        "group  n  images  hours  processes  tried",
        "1      1  32      0.01   1 cpu      -",
        *missing[3:],
    ]


@pytest.mark.slow
def test_a_sweep_that_was_trained_is_compared(toy, tmp_path):
    from tests.fixtures import KNN, rows

    config = toy(run={"steps": 3}, evaluate=KNN)
    done = api.sweep(config, ["optimizer.lr=1e-4,1e-3"], seeds=2, out=tmp_path / "s")
    found = api.compare(tmp_path / "s", figures=["knn/accuracy@5"])
    assert found.by == ["optimizer.lr"] and found.warnings == []
    for group, names in zip(found.groups, (done["runs"][:2], done["runs"][2:])):
        values = [rows(tmp_path / "s" / run["name"] / "evaluations.jsonl")[-1]["knn/accuracy@5"] for run in names]
        figure = group.figures["knn/accuracy@5"]
        assert (figure.values, figure.mean, figure.spread) == (values, mean(values), stdev(values))
        assert group.images == (24, 24) and group.budget.combinations == 2 and group.hours > 0
