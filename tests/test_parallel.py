"""Many processes compute what one does, hold as much less, and read each other's checkpoints."""

import math
import shutil

import pytest
import torch

from dinomx_core import ConfigError, DataError, api
from dinomx_core.testing import toy as planes
from dinomx_core.testing.processes import group
from dinomx_core.training.shards import State
from tests import mixes, together
from tests.fixtures import KNN, TIMINGS, rows

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    return mixes.make_teachers(tmp_path_factory.mktemp("teachers"))


def worst(one, many, what):
    """The largest difference of a weight, of the largest, biases of keys left out: their gradient is zero but for rounding."""
    names = [
        name for name in one["weights"] if name.startswith(what) and not name.endswith(("k_proj.bias", "key.bias"))
    ]
    return max(
        float((one["weights"][n] - many["weights"][n]).abs().max() / one["weights"][n].abs().max().clamp_min(1e-3))
        for n in names
    )


@pytest.mark.parametrize("method", mixes.METHODS)
@pytest.mark.parametrize(("precision", "limit"), [("float64", 1e-8), ("float32", 1e-4)])
def test_many_processes_compute_what_one_does(teachers, method, precision, limit):
    options = {"teacher": teachers[1], "precision": precision}
    one = together.train(mixes.config(method, **options), 20)
    for kind in ("ddp", "fsdp"):
        for processes in (2, 4):
            table = mixes.config(method, {"parallelism": {"name": kind, "processes": processes}}, **options)
            many = group(processes)("tests.together:train", table, 20)
            for ours, theirs in zip(one["rows"], many[0]["rows"], strict=True):
                for name in ("loss", "gradient_norm", *(key for key in ours if key.startswith("loss/"))):
                    assert theirs[name] == pytest.approx(ours[name], rel=limit), (kind, processes, ours["step"], name)
            assert worst(one, many[0], "student") < limit and worst(one, many[0], "teacher") < limit, (kind, processes)
            for rank in many[1:]:
                assert all(torch.equal(rank["weights"][name], tensor) for name, tensor in many[0]["weights"].items())


def test_accumulation_and_parts_that_wait_compute_the_same(teachers):
    until = {"strategies": ["freeze"], "strategy": {"freeze": {"blocks": 1, "until": 3}}}
    for changes in (
        {"run": {"accumulation": 2}},
        until,
        {"run": {"recompute": "blocks"}},
        {"run": {"recompute": "mlp"}},
    ):
        method = "dinov1" if "run" in changes and "accumulation" in changes["run"] else "dinov2"
        one = together.train(mixes.config(method, changes), 6)
        for kind in ("ddp", "fsdp"):
            table = mixes.config(method, changes, {"parallelism": {"name": kind, "processes": 2}})
            many = group(2)("tests.together:train", table, 6)
            assert worst(one, many[0], "student") < 1e-8, (kind, changes)


def test_every_mix_runs_or_is_refused_and_the_table_says_so(tmp_path):
    found = mixes.outcomes(tmp_path)
    assert len(found) * len(mixes.PARALLELISMS) == 108
    for cell, losses in found.items():
        ran = [values for values in losses.values() if not isinstance(values, str)]
        assert all(math.isfinite(value) for values in ran for value in values), cell
        assert all(values == pytest.approx(ran[0], rel=1e-8) for values in ran), cell
    assert mixes.page(found) == mixes.PAGE.read_text("utf-8")


def test_sharded_state_falls_as_one_over_the_number_of_processes(teachers):
    held = {}
    for processes in (1, 2, 4):
        table = mixes.config("dinov2", {"parallelism": {"name": "fsdp", "processes": processes}})
        held[processes] = [rank["held"] for rank in group(processes)("tests.together:train", table, 1)]
    (whole,) = held[1]
    for processes in (2, 4):
        for name, count in whole.items():
            assert sum(rank[name] for rank in held[processes]) == count
            assert max(rank[name] for rank in held[processes]) < 1.2 * count / processes


def test_a_run_goes_on_with_other_numbers_of_processes(tmp_path):
    """Saved on four, gone on with on two, on one and on four again: as one process would have done."""

    def part(folder, steps, processes, kind):
        settings = {
            "run": {"steps": steps, "out": str(folder), "name": "run"},
            "checkpoint": {"every": 3},
            "evaluate": KNN,
        }
        # What depends on the run's length is given in steps, so that it may be made longer.
        lengths = {
            "optimizer": {"lr": {"peak": 1e-3, "decay": 12}},
            "teacher": {"momentum": {"peak": 0.99, "decay": 12}},
        }
        table = mixes.config("dinov2", settings, lengths, {"strategies": ["lora"], "strategy": {"lora": {"rank": 2}}})
        table["health"] = {"every": 3}
        for name in ("dino", "ibot"):
            table["loss"][name]["teacher_temperature"] = {"peak": 0.05, "warmup": 0}
        if kind == "single":
            return together.run(table, resume=True)
        table["parallelism"] = {"name": kind, "processes": processes}
        return group(processes)("tests.together:run", table, True)[0]

    whole = part(tmp_path / "one", 12, 1, "single")
    for steps, processes, kind in ((3, 4, "fsdp"), (6, 2, "fsdp"), (9, 1, "single"), (12, 4, "ddp")):
        figures = part(tmp_path / "many", steps, processes, kind)
    assert figures == pytest.approx(whole, abs=0.01)
    ones, many = (
        [{k: v for k, v in row.items() if k not in TIMINGS} for row in rows(tmp_path / name / "run" / "metrics.jsonl")]
        for name in ("one", "many")
    )
    assert len(ones) == len(many) == 12
    for ours, theirs in zip(ones, many):
        assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-7)
    mine, theirs = (tmp_path / name / "run" / "checkpoints" / "12" for name in ("one", "many"))
    for name in ("student", "teacher", "optimizer", "losses"):
        with State(mine, name) as ours, State(theirs, name) as others:
            assert ours.shapes == others.shapes
            for key in ours.shapes:
                assert torch.allclose(ours.read(key), others.read(key), atol=1e-7) or "k_proj.bias" in key


@pytest.mark.parametrize("strategy", ["full", "lora"])
def test_parts_become_one_file_without_the_processes_that_wrote_them(tmp_path, strategy):
    settings = {
        "run": {"steps": 2, "out": str(tmp_path), "name": "run"},
        "parallelism": {"name": "fsdp", "processes": 4},
    }
    table = mixes.config("dinov1", settings, mixes.STRATEGIES[strategy], precision="float32")
    group(4)("tests.together:run", table)
    place = tmp_path / "run" / "checkpoints" / "2"
    assert len(list(place.glob("teacher*.safetensors"))) == 4
    assert (
        sum(file.stat().st_size for file in place.glob("teacher*"))
        < 1.5 * 4 * (place / "teacher.safetensors").stat().st_size
    )
    done = api.export(tmp_path / "run", tmp_path / "again")
    assert done["step"] == 2 and [file.name for file in (tmp_path / "again").glob("*.safetensors")] == [
        "model.safetensors"
    ]
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        tmp_path / "run" / "export" / "model.safetensors"
    ).read_bytes()
    (place / "teacher.2.safetensors").unlink()
    shutil.rmtree(tmp_path / "again")
    with pytest.raises(DataError, match=r"teacher\.2\.safetensors is missing"):
        api.export(tmp_path / "run", tmp_path / "again", checkpoint="2")


def test_neighbours_are_found_by_all_processes_and_unreadable_images_told_by_one(tmp_path, image_folder):
    (image_folder / "cats" / "0.png").write_bytes(b"broken")
    data = {"name": "image-folder", "path": str(image_folder), "split": None}
    shutil.copytree(image_folder, tmp_path / "others")
    bank, query = ({"name": "image-folder", "path": str(place)} for place in (image_folder, tmp_path / "others"))
    knn = {"knn": {"k": [3], "every": 2, "bank": bank, "query": query}}
    found = []
    for processes, kind in ((1, "single"), (2, "ddp"), (4, "fsdp")):
        settings = {
            "run": {"steps": 3, "out": str(tmp_path), "name": kind}, "data": data, "evaluate": knn,
            "loader": {"max_unreadable": 0.2}, "parallelism": {"name": kind},
        }  # fmt: skip
        table = mixes.config("dinov1", settings)
        if kind == "single":
            found.append(together.run(table))
        else:
            found.append(group(processes)("tests.together:run", table)[0])
    assert found[0] == found[1] == found[2] and 0 < found[0]["knn/accuracy@3"] <= 1
    told = [(tmp_path / kind / "unreadable.txt").read_text().splitlines() for kind in ("single", "ddp", "fsdp")]
    assert (
        sorted(told[0]) == sorted(told[1]) == sorted(told[2]) and len(told[0]) == 3
    )  # of training and of the two sets of the evaluation


def test_moving_to_the_memory_of_the_cpu_needs_a_gpu():
    table = mixes.config("dinov1", {"parallelism": {"name": "fsdp", "offload": True}})
    with pytest.raises(ConfigError, match="parallelism.offload: there is no GPU whose memory it could save"):
        api.plan(table, plugins=[planes])
