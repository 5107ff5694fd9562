"""All evaluators of the core in one run: what they must not change, and must have in common."""

import json
import signal

import numpy as np
import pytest
from PIL import Image

from dinomx_core import Stopped, api
from dinomx_core.testing.processes import group
from tests import mixes, together
from tests.fixtures import TIMINGS, rows
from tests.test_resume import StopAt, assert_same


def everything(root):
    """A table of every evaluator on images with classes, and masks of most of them."""
    rng = np.random.default_rng(0)
    sets = {}
    for name, count in (("bank", 22), ("query", 13)):
        (root / name).mkdir(parents=True)
        lines = []
        for number in range(count):
            mask = np.kron(rng.integers(0, 3, (4, 4)), np.ones((8, 8), np.uint8)).astype(np.uint8)
            image = (70 * mask + rng.integers(0, 30, mask.shape) + 15 * (number % 2)).astype(np.uint8)
            row = {"path": f"{name}/{number}.png", "y": "odd" if number % 2 else "even"}
            Image.fromarray(image).save(root / row["path"])
            if number % 5:
                row["mask"] = f"{name}/{number}-mask.png"
                Image.fromarray(mask).save(root / row["mask"])
            lines.append(json.dumps(row))
        (root / f"{name}.jsonl").write_text("\n".join(lines))
        sets[name] = {
            "name": "manifest",
            "path": str(root / f"{name}.jsonl"),
            "label": "y",
            "mask": "mask",
            "channels": 1,
        }
    small = {"batch_size": 4}
    return {
        "knn": {"k": [3], **sets, **small}, "linear": {"epochs": 3, **sets, **small}, "logistic": {"C": [0.1, 1.0], **sets, **small},
        "clustering": {"data": sets["bank"], **small}, "robustness": {"data": sets["query"], **small},
        "rankme": {"data": sets["query"], **small}, "dense-knn": {"k": 3, "patches": 100, **sets, **small},
        "dense-linear": {"epochs": 3, **sets, **small},
    }  # fmt: skip


def history(folder):
    return [{k: v for k, v in row.items() if k not in TIMINGS} for row in rows(folder / "metrics.jsonl")]


@pytest.mark.slow
def test_no_evaluator_changes_the_run_and_a_resume_is_bit_identical(toy, tmp_path):
    evaluate = {label: {"every": 3, **table} for label, table in everything(tmp_path).items()}
    config = toy(run={"name": "whole", "steps": 8}, evaluate=evaluate, checkpoint={"every": 4})
    whole = api.run(config)
    plain = api.run(toy(run={"name": "plain", "steps": 8}))
    assert history(whole.folder) == history(plain.folder)
    config["run"]["name"] = "cut"
    with pytest.raises(Stopped):
        api.run(config, progress=StopAt(5, signal.SIGTERM))
    assert_same(whole.folder, api.run(config, resume=True).folder)
    found = api.evaluate(whole.folder, {"evaluate": everything(tmp_path / "again")})["rows"][0]
    assert {name: found[name] for name in whole.figures} == whole.figures


@pytest.mark.slow
def test_processes_that_share_the_work_find_what_one_finds(tmp_path):
    found = []
    evaluate = {label: {"every": "100%", **table} for label, table in everything(tmp_path / "sets").items()}
    for processes, kind in ((1, "single"), (2, "ddp"), (4, "fsdp")):
        settings = {
            "run": {"steps": 2, "out": str(tmp_path), "name": kind}, "evaluate": evaluate, "parallelism": {"name": kind},
        }  # fmt: skip
        table = mixes.config("dinov1", settings)
        found.append(together.run(table) if kind == "single" else group(processes)("tests.together:run", table)[0])
    for other in found[1:]:
        assert other == pytest.approx(found[0], abs=0.02) and other.keys() == found[0].keys()
    assert {name.partition("/")[0] for name in found[0]} == set(evaluate)
