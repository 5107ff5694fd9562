"""Embeddings in shards, by many processes, of manifests, pooled."""

import copy
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dinomx_core import ConfigError, DataError, Stopped, api
from dinomx_core.planning.world import World
from dinomx_core.training.embed.job import EmbedJob
from dinomx_core.training.embed.passes import Passes
from dinomx_core.training.embed.share import Source, share
from dinomx_core.training.evaluation import preprocess
from tests.fixtures import TOY

pq = pytest.importorskip("pyarrow.parquet")
import pyarrow as pa  # noqa: E402

TOP = Path(__file__).parents[1]
DIED = "ended by SIGKILL; whole shards are kept, and the same command goes on with the others"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A run of a toy model of three channels."""
    folder = tmp_path_factory.mktemp("model")
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(folder / "black.png")
    config = copy.deepcopy(TOY)
    config["run"] = {**TOY["run"], "steps": 1, "batch_size": 1, "out": str(folder), "name": "run"}
    config["data"] = {"name": "image-folder", "path": str(folder)}
    config["augmentation"].update(mean=[0.5], std=[0.25])
    return api.run(config).folder


@pytest.fixture
def pictures(tmp_path):
    """23 images in two classes; the 6th to 10th, one shard of 5, and the 12th cannot be read."""
    return make_pictures(tmp_path / "pictures", 23, broken=(5, 6, 7, 8, 9, 11))


def make_pictures(root, count, broken=()):
    rng = np.random.default_rng(0)
    for number in range(count):
        file = root / ("a" if number < count // 2 else "b") / f"{number:04}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 20, 3), dtype=np.uint8)).save(file)
        if number in broken:
            file.write_bytes(b"no image")
    return root


@pytest.fixture
def manifest(tmp_path, pictures):
    """A CSV file of the images of that folder that can be read, by patients of three images; and its rows."""
    files = [f"pictures/{p.relative_to(pictures)}" for p in sorted(pictures.rglob("*.png")) if p.stat().st_size > 20]
    rows = [
        {"path": file, "patient": f"{n // 3:03}", "sex": "fm"[n // 3 % 2], "slice": str(n)} for n, file in enumerate(files)
    ]  # fmt: skip
    rows[-1]["sex"] = ""
    write_csv(tmp_path / "cells.csv", rows)
    return tmp_path / "cells.csv", rows


def write_csv(file, rows):
    with file.open("w", newline="") as text:
        writer = csv.DictWriter(text, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def command(*words):
    return [sys.executable, "-c", "from dinomx_core.cli import main; main()", "embed", *map(str, words)]


def dinomx(*words, **more):
    return subprocess.run(command(*words), capture_output=True, text=True, **more)


def bytes_of(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*.parquet"))}


def about(folder):
    return json.loads((folder / "embed.json").read_text())


def table_of(folder):
    return pa.concat_tables([pq.read_table(file) for file in sorted(folder.glob("part-*.parquet"))])


def vectors(table):
    return np.array(table["embedding"].to_pylist(), dtype=np.float32)


def refused(*arguments, error=DataError, **words):
    with pytest.raises(error) as caught:
        api.embed(*arguments, **words)
    return str(caught.value)


@pytest.mark.parametrize("tokens", ["cls", "patches"])
def test_a_folder_of_shards_holds_what_a_file_holds(model, pictures, tmp_path, tokens):
    done = api.embed(model, pictures, tmp_path / "e", tokens=tokens, shard_size=5, batch_size=2)
    alone = api.embed(model, pictures, tmp_path / "e.npz", tokens=tokens, batch_size=2)
    assert sorted(p.name for p in (tmp_path / "e").iterdir()) == [
        "embed.json",
        *(f"part-0000{n}.parquet" for n in range(5)),
    ]
    assert [pq.read_metadata(tmp_path / "e" / f"part-0000{n}.parquet").num_rows for n in range(5)] == [5, 0, 4, 5, 3]
    table, file = table_of(tmp_path / "e"), np.load(tmp_path / "e.npz")
    assert table["id"].to_pylist() == list(file["ids"]) and table["label"].to_pylist() == list(file["labels"])
    np.testing.assert_allclose(vectors(table), file["embeddings"], rtol=1e-4, atol=1e-5)
    assert done["shape"] == alone["shape"] == file["embeddings"].shape and done["finished"]
    assert done["images"] == 17 and done["unreadable"] == alone["unreadable"] and len(done["unreadable"]) == 6
    told = about(tmp_path / "e")
    assert told["unreadable"] == done["unreadable"] and tuple(told["shape"]) == done["shape"]
    assert (told["embedded"], told["count"], told["shards"], told["shard_size"], told["tokens"]) == (
        17,
        23,
        5,
        5,
        tokens,
    )
    assert (told["source"], told["data"], told["channels"]) == (str(model), str(pictures), 3)
    assert {"dinomx", "torch"} <= set(told["versions"])


def test_shares_of_several_processes_are_the_shards_of_one(model, pictures, tmp_path, monkeypatch):
    api.embed(model, pictures, tmp_path / "one", shard_size=5, batch_size=2, pool="label")
    job = EmbedJob(str(model), str(pictures), str(tmp_path / "e"), shard_size=5, batch_size=2, pool="label")
    done = []
    for rank in (2, 0, 1):
        monkeypatch.setattr("dinomx_core.planning.plan.os.sched_getaffinity", lambda _: range(9), raising=False)
        world = World(3, rank, rank, 3, "torchrun", "")
        done.append(
            share(job, Source(lambda: api.reading_of(model), lambda: api.model_of(model)), world, None, None)[
                "finished"
            ]
        )
        if not done[-1]:
            assert "embedded" not in about(tmp_path / "e")
    assert done == [False, False, True]
    assert bytes_of(tmp_path / "e") == bytes_of(tmp_path / "one")
    ours, theirs = about(tmp_path / "e"), about(tmp_path / "one")
    assert ours.pop("pooled")["groups"] == theirs.pop("pooled")["groups"] == 2 and ours == theirs


def test_what_is_whole_is_kept_and_the_rest_made_again(model, pictures, tmp_path, monkeypatch):
    out = tmp_path / "e"
    words = {"shard_size": 5, "batch_size": 2}
    wanted = bytes_of_new(model, pictures, tmp_path / "once", **words)
    passes, encode = [], Passes.encode

    def counting(self, items):
        passes.append(len(items))
        if len(passes) == 10:
            raise MemoryError
        return encode(self, items)

    monkeypatch.setattr(Passes, "encode", counting)
    with pytest.raises(MemoryError):
        api.embed(model, pictures, out, **words)
    kept = {name: (out / name).stat().st_mtime_ns for name in bytes_of(out)}
    assert 0 < len(kept) < 5 and not [p for p in out.iterdir() if p.name.startswith(".")]
    assert "embedded" not in about(out)
    (out / ".part-00004.parquet.0123.draft").write_text("half")  # of a process that was killed
    last = sorted(kept)[-1]
    (out / last).write_bytes((out / last).read_bytes()[:-9])
    seen = []
    api.embed(model, pictures, out, progress=lambda done, total: seen.append((done, total)), **words)
    assert bytes_of(out) == wanted and not (out / ".part-00004.parquet.0123.draft").exists()
    assert [name for name in kept if (out / name).stat().st_mtime_ns != kept[name]] == [last]
    assert seen[0] == (5, 23) and seen[-1] == (23, 23) and seen == sorted(seen)
    passes.clear()
    again = api.embed(model, pictures, out, **words)
    assert not passes and again["images"] == 17 and len(again["unreadable"]) == 6


def bytes_of_new(*arguments, **words):
    api.embed(*arguments, **words)
    return bytes_of(arguments[2])


def test_another_model_images_tokens_or_size_are_refused_and_overwritten_when_told(
    model, pictures, tmp_path, model_folder
):
    out = tmp_path / "e"
    words = {"shard_size": 5}
    api.embed(model, pictures, out, pool="label", **words)
    remedy = "; start anew with --overwrite, or choose another --out"
    (tmp_path / "other.toml").write_text(api.to_toml(other_config(pictures)))
    shutil.copytree(pictures, tmp_path / "fewer")
    (tmp_path / "fewer" / "a" / "0000.png").unlink()
    for arguments, message in (
        ((model, tmp_path / "fewer", {}), f"of other images (23 of {pictures})"),
        ((model, pictures, {"tokens": "patch-mean"}), "of the tokens cls, not patch-mean"),
        ((model, pictures, {"shard_size": 0}), "in shards of 5 images, not 10000"),
        ((tmp_path / "other.toml", pictures, {}), f"of another model ({model})"),
        ((model, tmp_path / "fewer", {"tokens": "patches"}), f"of other images (23 of {pictures}) and of the tokens cls, not patches"),
    ):  # fmt: skip
        source, data, changes = arguments
        said = refused(source, data, out, error=ConfigError, **{**words, **changes})
        assert said == f"{out}: holds embeddings {message}{remedy}"
    shutil.copytree(pictures, tmp_path / "moved" / "elsewhere")  # the same names
    assert api.embed(model, tmp_path / "moved" / "elsewhere", out, **words)["finished"]
    assert (out / "pooled.parquet").exists() and about(out)["pooled"]["groups"] == 2
    (out / "notes.txt").write_text("mine")
    api.embed(tmp_path / "other.toml", pictures, out, overwrite=True, shard_size=10)
    assert sorted(p.name for p in out.iterdir()) == [
        "embed.json",
        "notes.txt",
        *(f"part-0000{n}.parquet" for n in range(3)),
    ]
    assert about(out)["source"] == str(tmp_path / "other.toml")
    before = {name: (out / name).stat().st_mtime_ns for name in bytes_of(out)}
    api.embed(tmp_path / "other.toml", pictures, out, overwrite=True, shard_size=10)
    assert not [name for name in before if (out / name).stat().st_mtime_ns == before[name]]


def other_config(pictures):
    config = copy.deepcopy(TOY)
    config["data"] = {"name": "image-folder", "path": str(pictures)}
    config["augmentation"].update(mean=[0.5], std=[0.25])
    return config


def test_bad_requests_are_refused_and_leave_nothing(model, pictures, manifest, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").touch()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "embed.json").write_text("{}")
    (tmp_path / "file").touch()
    (tmp_path / "list.txt").touch()
    (tmp_path / "flat").mkdir()
    shutil.copy(pictures / "a" / "0000.png", tmp_path / "flat")
    there = sorted(tmp_path.rglob("*"))
    file, _ = manifest
    out, npz = tmp_path / "e", tmp_path / "e.npz"
    ours = '"id", "embedding"'
    for arguments, words, message in (
        ((pictures, tmp_path / "e.csv"), {}, f"{tmp_path}/e.csv: expected a name that ends with .npz or .parquet, or a folder's, without a suffix"),
        ((pictures, tmp_path / "file"), {}, f"{tmp_path}/file: is a file; name a folder, or a file that ends with .npz or .parquet"),
        ((pictures, npz), {"processes": 2}, f"processes: {npz} is one file, which one process writes; give --out a folder, such as {out}"),
        ((pictures, npz), {"shard_size": 3}, f"shard_size: {npz} is one file, which has no shards; give --out a folder, such as {out}"),
        ((pictures, out), {"tokens": "patches", "pool": "label"}, "pool: patches of different images have no mean of their own; choose --tokens cls or patch-mean"),
        ((pictures, out), {"path_column": "file"}, f'"{pictures}" is a folder, and --path-column is of manifests; leave it out'),
        ((tmp_path / "list.txt", out), {}, f'"{tmp_path}/list.txt" is a file of another kind; name a folder of images or a manifest (.csv, .jsonl, .parquet)'),
        ((pictures, out), {"pool": "well"}, f'pool: {pictures} has no column "well" to pool by; there are: "label"'),
        ((tmp_path / "flat", out), {"pool": "label"}, f'pool: {tmp_path}/flat has no column "label" to pool by; there are: none'),
        ((file, out), {"pool": "label"}, f'pool: {file} has no column "label" to pool by; there are: "patient", "sex", "slice"'),
        ((file, out), {"pool": "sex"}, f'pool: {file}: column "sex" is empty in line 18; give these a value of their own, or leave them out of the manifest'),
        ((file, out), {"path_column": "file"}, f'{file}: has no column "file" of the images\' paths; its columns are "path", "patient", "sex", "slice"'),
    ):  # fmt: skip
        assert refused(model, *arguments, **words) == message
    for name, columns, words, message in (
        ("e", ("embedding", "id"), {}, f'the output has columns {ours} of its own; rename "embedding", "id" in the manifest'),
        ("e", ("count", "x"), {"pool": "x"}, f'the output has columns {ours}, "count" of its own; rename "count" in the manifest'),
        ("e.npz", ("ids", "x"), {}, f'the output has columns {ours}, "ids", "embeddings", "labels" of its own; rename "ids" in the manifest'),
    ):  # fmt: skip
        write_csv(tmp_path / "clash.csv", [{"path": "pictures/a/0000.png", columns[0]: "1", columns[1]: "2"}])
        assert refused(model, tmp_path / "clash.csv", tmp_path / name, **words) == f"{tmp_path}/clash.csv: {message}"
    (tmp_path / "clash.csv").write_text("path\nnowhere.png\n")
    assert refused(model, tmp_path / "clash.csv", out) == (
        f"{tmp_path}/clash.csv: 1 of 1 images are not there (paths are absolute, or below {tmp_path}): line 2: nowhere.png"
    )
    (tmp_path / "clash.csv").unlink()
    assert refused(model, pictures, tmp_path / "mine", error=ConfigError, overwrite=True) == (
        f"{tmp_path}/mine: holds other files (a.txt); choose another --out"
    )
    assert refused(model, pictures, tmp_path / "broken", error=ConfigError) == (
        f"{tmp_path}/broken/embed.json: cannot be read (KeyError: 'images'); start anew with --overwrite, or choose another --out"
    )
    assert "neither a run" in refused(tmp_path / "flat", pictures, out, processes=2)
    assert sorted(tmp_path.rglob("*")) == there


def test_nothing_that_can_be_read_is_an_error(model, tmp_path):
    root = make_pictures(tmp_path / "p", 12, broken=())
    (tmp_path / "m.csv").write_text("path\n" + "".join(f"{file}\n" for file in sorted(root.rglob("*.png"))[:3]))
    for file in sorted(root.rglob("*.png"))[:3]:
        file.write_bytes(b"no image")
    for name in ("e", "e.npz", "e.parquet"):
        said = refused(model, tmp_path / "m.csv", tmp_path / name)
        assert said.startswith(
            f"none of the 3 images can be read; the first: {root}/a/0000.png: cannot be read as an image"
        )
    assert not list(tmp_path.glob("*e.*")) and not list(tmp_path.glob(".e*"))


def test_columns_of_a_manifest_are_carried_through(model, manifest, pictures, tmp_path):
    file, rows = manifest
    api.embed(model, file, tmp_path / "e", shard_size=5)
    api.embed(model, file, tmp_path / "e.parquet")
    api.embed(model, file, tmp_path / "e.npz")
    npz = np.load(tmp_path / "e.npz")
    for table in (table_of(tmp_path / "e"), pq.read_table(tmp_path / "e.parquet")):
        assert table.column_names == ["id", "label", "patient", "sex", "slice", "embedding"]
        assert table["id"].to_pylist() == [row["path"] for row in rows] == list(npz["ids"])
        assert table["label"].to_pylist() == [""] * 17
        for name in ("patient", "sex", "slice"):
            assert table[name].to_pylist() == [row[name] or None for row in rows]
            assert list(npz[name]) == [row[name] for row in rows]
        np.testing.assert_allclose(vectors(table), npz["embeddings"], rtol=1e-4, atol=1e-5)
    api.embed(model, pictures, tmp_path / "folder.npz")  # the same images by another way
    np.testing.assert_allclose(np.load(tmp_path / "folder.npz")["embeddings"], npz["embeddings"], rtol=1e-4, atol=1e-5)


def test_a_manifests_own_labels_are_the_labels(model, pictures, tmp_path):
    rows = [
        {"path": f"pictures/a/{n:04}.png", "label": word, "well": "w"}
        for n, word in enumerate(["mitosis", "rest", "rest"])
    ]
    write_csv(tmp_path / "labelled.csv", rows)
    for name in ("e", "e.parquet"):
        api.embed(model, tmp_path / "labelled.csv", tmp_path / name)
        table = table_of(tmp_path / name) if name == "e" else pq.read_table(tmp_path / name)
        assert table["label"].to_pylist() == ["mitosis", "rest", "rest"]
    api.embed(model, tmp_path / "labelled.csv", tmp_path / "e.npz", pool="label")
    with np.load(tmp_path / "e.npz") as arrays:
        assert list(arrays["labels"]) == ["mitosis", "rest"] and list(arrays["counts"]) == [1, 2]


def test_types_of_a_manifests_columns_are_kept(model, pictures, tmp_path):
    import datetime

    files = [str(file) for file in sorted((pictures / "b").iterdir())[1:5]]
    day = datetime.date(2020, 2, 2)
    table = pa.table(
        {
            "image": files,
            "age": pa.array([1, None, 3, 4], pa.int16()),
            "day": [day, None, day, day],
            "site": pa.array(["x", "y", "x", None]).dictionary_encode(),
            "file": [1.5, 2.5, None, 4.5],
            "box": [[1, 2], [3], [], None],
            "old": [True, False, True, False],
        }
    )
    pq.write_table(table, tmp_path / "m.parquet", row_group_size=2)
    api.embed(model, tmp_path / "m.parquet", tmp_path / "e", path_column="image", shard_size=3)
    found = table_of(tmp_path / "e")
    assert found["id"].to_pylist() == files
    for name in table.column_names[1:]:
        assert found[name].type == table[name].type and found[name].to_pylist() == table[name].to_pylist()
    api.embed(model, tmp_path / "m.parquet", tmp_path / "e.npz", path_column="image")
    npz = np.load(tmp_path / "e.npz")
    np.testing.assert_array_equal(npz["age"], [1, np.nan, 3, 4])
    np.testing.assert_array_equal(npz["file"], [1.5, 2.5, np.nan, 4.5])
    assert list(npz["day"]) == ["2020-02-02", "", "2020-02-02", "2020-02-02"] and list(npz["site"]) == [
        "x",
        "y",
        "x",
        "",
    ]
    assert npz["old"].dtype == bool and list(npz["box"]) == ["[1, 2]", "[3]", "[]", ""]
    rows = [{"path": file, "n": n, "x": n / 2, "nothing": None} for n, file in enumerate(files)]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    api.embed(model, tmp_path / "m.jsonl", tmp_path / "j.parquet")
    found = pq.read_table(tmp_path / "j.parquet")
    assert [found[name].type for name in ("n", "x", "nothing")] == [pa.int64(), pa.float64(), pa.string()]


def test_pooling_is_the_mean_over_each_group(model, manifest, tmp_path):
    file, rows = manifest
    done = api.embed(model, file, tmp_path / "e", shard_size=5, pool="patient", batch_size=4)
    api.embed(model, file, tmp_path / "e.npz", pool="patient", batch_size=4)
    api.embed(model, file, tmp_path / "e.parquet", pool="patient", batch_size=4)
    images, pooled, npz = (
        table_of(tmp_path / "e"),
        pq.read_table(tmp_path / "e" / "pooled.parquet"),
        np.load(tmp_path / "e.npz"),
    )
    patients = np.array([row["patient"] for row in rows])
    names = sorted(set(patients))
    mean = np.stack([vectors(images)[patients == name].mean(0, dtype=np.float64) for name in names])
    assert pooled.column_names == ["patient", "count", "embedding"]  # a patient of the last two lacks its sex
    assert pooled["patient"].to_pylist() == names and pooled["count"].to_pylist() == [3] * 5 + [2]
    assert pooled["embedding"].type == pa.list_(pa.float32(), 16)
    np.testing.assert_array_equal(vectors(pooled), mean.astype(np.float32))
    assert list(npz["patient"]) == names and list(npz["counts"]) == [3] * 5 + [2]
    np.testing.assert_allclose(npz["embeddings"], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(vectors(pq.read_table(tmp_path / "e.parquet")), npz["embeddings"])
    assert done["pooled"] == about(tmp_path / "e")["pooled"] == {
        "column": "patient", "groups": 6, "file": str(tmp_path / "e" / "pooled.parquet"), "left_out": ["sex", "slice"],
    }  # fmt: skip
    rows[-1]["sex"] = rows[-2]["sex"]
    write_csv(file, rows)
    api.embed(model, file, tmp_path / "sex", pool="patient")
    assert pq.read_table(tmp_path / "sex" / "pooled.parquet")["sex"].to_pylist() == ["f", "m"] * 3
    before = bytes_of(tmp_path / "sex")
    api.embed(model, file, tmp_path / "sex", pool="sex")  # shards are kept, and pooled by another column
    after = bytes_of(tmp_path / "sex")
    assert before.pop("pooled.parquet") != after.pop("pooled.parquet") and before == after
    assert pq.read_table(tmp_path / "sex" / "pooled.parquet")["count"].to_pylist() == [9, 8]


def test_classes_of_a_folder_are_pooled_without_what_cannot_be_read(model, pictures, tmp_path):
    api.embed(model, pictures, tmp_path / "e", shard_size=5, pool="label")
    images, pooled = table_of(tmp_path / "e"), pq.read_table(tmp_path / "e" / "pooled.parquet")
    assert pooled["label"].to_pylist() == ["a", "b"] and pooled["count"].to_pylist() == [6, 11]
    found = vectors(images)
    mean = np.stack([found[:6].mean(0, dtype=np.float64), found[6:].mean(0, dtype=np.float64)]).astype(np.float32)
    np.testing.assert_array_equal(vectors(pooled), mean)


def test_a_stop_keeps_whole_shards(model, pictures, tmp_path):
    def progress(done, total):
        if done >= 16:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped, match="SIGTERM: whole shards are kept, and the same command goes on with the others"):
        api.embed(model, pictures, tmp_path / "e", shard_size=5, batch_size=1, progress=progress)
    assert 3 <= len(bytes_of(tmp_path / "e")) < 5
    assert not [p for p in (tmp_path / "e").iterdir() if p.name.startswith(".")]


@pytest.mark.slow
def test_two_processes_write_what_one_writes_and_say_it_once(model, pictures, tmp_path):
    one = dinomx(model, pictures, "--out", tmp_path / "one", "--shard-size", 4, "--pool", "label")
    two = dinomx(model, pictures, "--out", tmp_path / "two", "--shard-size", 4, "--pool", "label", "--processes", 2)
    assert two.returncode == one.returncode == 0, two.stderr
    assert two.stdout.replace("/two", "/one") == one.stdout and two.stderr == one.stderr
    assert two.stdout == (
        f"embedded     17 images, cls 17x16, in {tmp_path}/two\n"
        f"pooled       2 groups by label, in {tmp_path}/two/pooled.parquet\n"
    )
    assert len(two.stderr.splitlines()) == 6
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    seen = []
    progress = lambda done, total: seen.append((done, total))  # noqa: E731
    done = api.embed(model, pictures, tmp_path / "e", shard_size=4, processes=2, progress=progress)
    assert (done["images"], done["shape"], done["finished"]) == (17, (17, 16), True)
    assert seen[-1] == (23, 23) and seen == sorted(seen)


@pytest.mark.slow
def test_an_error_of_one_process_is_told_once_with_its_number(model, pictures, tmp_path):
    api.embed(model, pictures, tmp_path / "e", shard_size=4)
    part = tmp_path / "e" / "part-00001.parquet"
    part.unlink()
    part.mkdir()
    done = dinomx(model, pictures, "--out", tmp_path / "e", "--shard-size", 4, "--processes", 2)
    assert (done.returncode, done.stderr) == (2, f"error: rank 1: {part}: cannot be written: Is a directory\n")


def test_without_pyarrow_only_npz_is_written(model, pictures, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for name in ("e", "e.parquet"):
        assert refused(model, pictures, tmp_path / name) == 'Parquet needs pyarrow: pip install "dinomx[parquet]"'
    assert not list(tmp_path.glob("*e")) and not list(tmp_path.glob("*.draft"))
    assert api.embed(model, pictures, tmp_path / "e.npz", pool="label")["pooled"]["groups"] == 2


@pytest.mark.slow
def test_processes_and_their_parent_may_be_killed_and_the_rest_is_made(model, tmp_path):
    root = make_pictures(tmp_path / "many", 1500)
    api.embed(model, root, tmp_path / "one", shard_size=10)
    words = (model, root, "--out", tmp_path / "e", "--shard-size", 10, "--processes", 2)
    wanted = {"": (3, f"error: rank 0: {DIED}\n"), "TERM": (4, "stopped: SIGTERM: "), "INT": (4, "stopped: SIGINT: ")}
    for victim in ("parent", *wanted):
        before = len(bytes_of(tmp_path / "e"))
        parent = subprocess.Popen(command(*words), stderr=subprocess.PIPE, text=True)
        children = wait_for(
            lambda before=before, parent=parent: grown(tmp_path / "e", before) and children_of(parent.pid)
        )
        if victim == "parent":
            parent.kill()
        else:
            os.kill(parent.pid if victim else children[0], getattr(signal, f"SIG{victim or 'KILL'}"))
        _, said = parent.communicate(timeout=60)
        if victim in wanted:
            code, text = wanted[victim]
            assert parent.returncode == code and said.startswith(text) and len(said.splitlines()) == 1
        wait_for(lambda children=children: not [child for child in children if alive(child)])
        assert len(bytes_of(tmp_path / "e")) < 150 and "embedded" not in about(tmp_path / "e")
    assert dinomx(*words).returncode == 0
    assert bytes_of(tmp_path / "e") == bytes_of(tmp_path / "one")
    assert not list((tmp_path / "e").glob(".*"))


def grown(folder, before):
    return folder.exists() and len(bytes_of(folder)) >= before + 3


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise TimeoutError


def children_of(process):
    return [int(n) for n in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_torchrun_and_srun_start_the_same(model, pictures, tmp_path):
    api.embed(model, pictures, tmp_path / "one", shard_size=4)
    words = command(model, pictures, "--out", tmp_path / "e", "--shard-size", 4)
    script = tmp_path / "embed.py"
    script.write_text("from dinomx_core.cli import main; main()")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]

    def torchrun(*more):
        return subprocess.run([*launch, *words[3:], *more], capture_output=True, text=True)

    def srun(*more):
        with __import__("socket").socket() as probe:
            probe.bind(("localhost", 0))
            port = str(probe.getsockname()[1])
        common = {
            **os.environ,
            "SLURM_STEP_NUM_TASKS": "3",
            "SLURM_STEP_TASKS_PER_NODE": "3",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        tasks = [
            subprocess.Popen([*words, *more], env={**common, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for rank in range(3)
        ]  # fmt: skip
        found = [task.communicate(timeout=120) for task in tasks]
        return [task.returncode for task in tasks], *("".join(part) for part in zip(*found))

    done = torchrun()
    assert done.returncode == 0 and done.stdout == f"embedded     17 images, cls 17x16, in {tmp_path}/e\n"
    assert bytes_of(tmp_path / "e") == bytes_of(tmp_path / "one")
    refusal = "holds embeddings of the tokens cls, not patch-mean; start anew with --overwrite, or choose another --out"
    codes, out, said = srun("--tokens", "patch-mean")
    assert codes == [2, 2, 2] and not out and said.count(refusal) == 1
    for start in (srun, torchrun):
        before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "e").glob("part-*")}
        done = start("--tokens", "patch-mean", "--overwrite")
        codes, out = done[:2] if start is srun else ([done.returncode], done.stdout)
        assert set(codes) == {0} and out == f"embedded     17 images, patch-mean 17x16, in {tmp_path}/e\n", done
        assert not [name for name in before if (tmp_path / "e" / name).stat().st_mtime_ns == before[name]]
    done = torchrun("--tokens", "patch-mean", "--processes", "2")
    assert "processes: torchrun has started 2 of them already; leave it out" in done.stderr and done.returncode


@pytest.mark.slow
def test_weights_of_others_embed_as_transformers_has_them(model_folder, pictures, tmp_path):
    from transformers import AutoModel

    folder = model_folder(image_size=32)
    done = api.embed(folder, pictures, tmp_path / "e.npz")
    assert done["notes"] == [
        f"{folder} does not say how its pixels were normalised: ImageNet's mean and deviation are taken"
    ]
    ours, model = np.load(tmp_path / "e.npz"), api.model_of(folder)
    name = str(ours["ids"][0])
    pixels = preprocess(model.prepare(model._read(pictures / name)), model.preprocessing)
    with torch.no_grad():
        theirs = AutoModel.from_pretrained(folder).eval()(pixels[None]).last_hidden_state[0, 0]
    np.testing.assert_allclose(ours["embeddings"][0], theirs.numpy(), rtol=1e-4, atol=1e-4)
    assert api.embed(folder, pictures, tmp_path / "e", processes=2, shard_size=5)["images"] == done["images"]
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(DataError, match=f"^{folder}"):
        api.embed(folder, pictures, tmp_path / "other.npz")
