"""`dinomx explain`: what it opens, reads, writes and refuses."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel, DINOv3ConvNextConfig, DINOv3ConvNextModel

from dinomx_core import ConfigError, DataError, TrainingError, api
from dinomx_core.declare.facts import Preprocessing
from dinomx_interpret import explain
from dinomx_interpret.seeing import sides
from tests.bright import SIZES, save_bright

TOP = Path(__file__).parents[3]


def dinomx(*arguments, cwd):
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "100"}
    path = os.pathsep.join((str(TOP), environment.get("PYTHONPATH", "")))
    code = "from dinomx_core.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=cwd, env={**environment, "PYTHONPATH": path},
        capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture
def model(tmp_path):
    return save_bright(tmp_path / "model", "registers")


def photo(file, height=30, width=40, seed=0):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(image).save(file)
    return file


@pytest.mark.slow
def test_the_command_writes_pngs_and_one_page(model, image_folder, tmp_path):
    (image_folder / "cats" / "2.png").write_bytes(b"no image")
    done = dinomx(
        "explain", model, image_folder, photo(tmp_path / "one.png"), "--limit", 20, "--size", 32, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        r"warning: left out, 1 in all: \S+/images/cats/2\.png: cannot be read as an image\b.*\n", done.stderr
    ), done.stderr
    assert done.stdout == (
        f"note         {model} does not say how its pixels were normalised: ImageNet's mean and deviation are taken\n"
        "explained    12 of 13 images\nopen it      explain/model/index.html\n"
    )
    out = tmp_path / "explain" / "model"
    assert sorted(p.name for p in out.iterdir() if p.suffix == ".png")[-2:] == ["11-5.png", "12-one.png"]
    told = json.loads((out / "explain.json").read_text())
    assert (told["found"], told["block"], told["heads"], told["registers"]) == (13, 1, 1, 3)
    assert [image["name"] for image in told["images"]][:3] == ["cats/0.png", "cats/1.png", "cats/3.png"]
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()) == told["files"]
    for file in (out / name for name in told["files"] if name.endswith(".png")):
        Image.open(file).load()


def test_a_run_a_checkpoint_an_export_and_a_config_open(toy, tmp_path):
    run = api.run(toy(run={"steps": 1})).folder
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 3).save(tmp_path / "digit.png")
    (tmp_path / "cells.toml").write_text(api.to_toml(toy()))
    sources = {run: "run", run / "export": "run", run / "checkpoints" / "1": "run-1", tmp_path / "cells.toml": "cells"}
    for number, (source, name) in enumerate(sources.items()):
        told = explain(source, tmp_path / "digit.png", out=tmp_path / str(number))
        assert (told["name"], told["heads"], told["images"][0]["grid"], told["notes"]) == (name, 2, [4, 4], [])


def test_a_folder_from_elsewhere_brings_its_own_preprocessing(model, tmp_path):
    opened = api.model_of(model)
    notes = list(opened.notes)
    assert opened.preprocessing == Preprocessing(32, (32, 32), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert notes == [f"{model} does not say how its pixels were normalised: ImageNet's mean and deviation are taken"]
    prepared = {
        "size": {"shortest_edge": 40},
        "crop_size": {"height": 33, "width": 24},
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [1, 2, 3],
    }
    (model / "preprocessor_config.json").write_text(json.dumps(prepared))
    opened = api.model_of(model)
    notes = list(opened.notes)
    assert opened.preprocessing == Preprocessing(40, (32, 24), (0.1, 0.2, 0.3), (1, 2, 3)) and notes == []


def test_a_tower_inside_a_larger_model_opens(tmp_path):
    text = {**SIZES, "vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    CLIPModel(CLIPConfig(vision_config=SIZES, text_config=text, projection_dim=8)).save_pretrained(tmp_path / "clip")
    told = explain(tmp_path / "clip", photo(tmp_path / "a.png"), out=tmp_path / "out")
    assert (told["heads"], told["query"], told["images"][0]["grid"]) == (1, "class token", [4, 5])


def test_a_model_without_attentions_gets_the_rest_and_says_so(tmp_path):
    config = DINOv3ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], image_size=64)
    DINOv3ConvNextModel(config).save_pretrained(tmp_path / "convnext")
    told = explain(tmp_path / "convnext", photo(tmp_path / "a.png", 64, 128), out=tmp_path / "out")
    assert told["notes"][-1] == (
        "attention, rollout and registers are left out: this backbone has no attentions to look at (a convolutional one, or one that "
        "computes its attention itself)"
    )
    assert [panel["name"] for panel in told["images"][0]["panels"]] == ["pca", "clusters", "similarity"]
    assert told["images"][0]["grid"] == [2, 4]


@pytest.mark.parametrize(
    ("height", "width", "wanted", "expected"),
    [
        (300, 400, (), (224, 304)),  # 298.7 is nearest to 304
        (1000, 300, (), (752, 224)),
        (20, 20, (), (224, 224)),
        (300, 400, (100,), (96, 128)),
        (300, 400, (100, 44), (96, 48)),
        (5, 5, (3,), (16, 16)),
        (10, 4000, (), (16, 6400 * 16)),
    ],
)
def test_images_keep_their_proportions_in_whole_patches(height, width, wanted, expected):
    found = sides(height, width, 16, Preprocessing(256, (224, 224), (0.5,), (0.5,)), wanted)
    if expected[1] == 6400 * 16:  # too long to be drawn whole: smaller, as long as its patches allow
        assert found[0] == 64 and found[1] / found[0] == pytest.approx(400, rel=0.2) and found[1] // 16 * 4 <= 6400
    else:
        assert found == expected


def test_too_many_patches_are_refused(model, tmp_path):
    with pytest.raises(ConfigError) as caught:
        explain(model, photo(tmp_path / "a.png"), out=tmp_path / "out", size=2000)
    assert str(caught.value) == (
        f"--size: {tmp_path}/a.png: 2000 x 2664 pixels are 83250 patches, and at most 6400 are drawn; give a smaller size"
    )


def test_what_cannot_be_read_is_named_counted_and_left_out(model, tmp_path):
    good, bad = photo(tmp_path / "good.png"), tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    told = explain(model, [bad, good], out=tmp_path / "out")
    assert [image["name"] for image in told["images"]] == [str(good)] and told["found"] == 2
    assert told["warnings"][0].startswith(f"left out, 1 in all: {bad}: cannot be read as an image")
    third = photo(tmp_path / "third.png")
    told = explain(model, [bad, good, third], out=tmp_path / "out", limit=2)
    assert told["notes"][-1] == "1 of 3 images are drawn, evenly spread (--limit); 1 more cannot be read"
    with pytest.raises(DataError, match=f"none of 1 images can be read; the first: {bad}: cannot be read as an image"):
        explain(model, bad, out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_bad_input_is_refused_before_anything_is_written(model, tmp_path):
    (tmp_path / "empty").mkdir()
    image = photo(tmp_path / "a.png")
    for images, options, message in (
        (tmp_path / "empty", {}, f'no images in "{tmp_path}/empty" (.bmp, .jpeg, .jpg, .npy, .png, .tif, .tiff, .webp)'),
        (tmp_path / "nothing.png", {}, f'there is no file or folder "{tmp_path}/nothing.png" (looked in {Path.cwd()})'),
        (image, {"patch": (9, 0)}, f"--patch: {image}: has 4 rows and 5 columns of patches, there is no 9,0"),
        (image, {"map": tmp_path / "nothere"}, f'--map: there is no folder "{tmp_path}/nothere" (looked in {Path.cwd()})'),
        (image, {"channels": (0, 7)}, "--channels: there is no channel 7; they go from 0 to 2"),
        (image, {"block": 5}, "--block: the model has 1 blocks, got 5"),
        (image, {"block": 0, "clusters": 1, "size": 0, "patch": (-1, 2), "limit": 0, "channels": (1, 2, 3, 4)},
         "--size: sides have one pixel or more, got 0\n--block: blocks are counted from 1, got 0\n"
         "--clusters: expected 2 to 20 clusters, got 1\n--patch: rows and columns are counted from 0, got -1,2\n"
         "--limit: expected one image or more, got 0\n--channels: expected one to three numbers such as 0,3,5, got 1,2,3,4"),
    ):  # fmt: skip
        with pytest.raises((ConfigError, DataError)) as caught:
            explain(model, images, out=tmp_path / "out", **options)
        assert str(caught.value) == message
        assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError) as caught:
        explain(image, tmp_path / "empty", out=tmp_path / "out")
    assert str(caught.value) == f"{image} is an image and no model; name the model first, then the images"
    with pytest.raises(DataError, match="neither a run, nor a checkpoint, nor an export"):
        explain(tmp_path / "empty", image, out=tmp_path / "out")
    (tmp_path / "t5").mkdir()
    (tmp_path / "t5" / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(
        DataError, match='t5: holds a model of type "t5", of which DINO-MX does not know how to tell patch'
    ):
        explain(tmp_path / "t5", image, out=tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "12xx"], '--size: expected pixels such as 224, or height x width such as 224x320, got "12xx"'),
        (["--patch", "3"], '--patch: expected a row and a column such as 3,7, got "3"'),
        (["--channels", "a"], '--channels: expected one to three numbers such as 0,3,5, got "a"'),
    ],
)
def test_options_that_are_no_numbers_are_refused(words, message, tmp_path):
    done = dinomx("explain", "model", "a.png", *words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, f"error: {message}\n")


def test_a_folder_of_other_things_is_kept_and_one_of_ours_gives_way(model, tmp_path):
    out, first, second = tmp_path / "out", photo(tmp_path / "first.png"), photo(tmp_path / "second.png")
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError) as caught:
        explain(model, first, out=out)
    told = f"--out: {out} holds something else; choose another folder, or write into it with --overwrite"
    assert str(caught.value) == told
    explain(model, first, out=out, overwrite=True)
    (out / "01-first" / "note.txt").write_text("mine")
    explain(model, second, out=out)
    assert (out / "thesis.txt").read_text() == "mine" and (out / "01-first" / "note.txt").read_text() == "mine"
    assert {p.name for p in out.iterdir()} == {
        "01-first",
        "01-second",
        "01-second.png",
        "explain.json",
        "index.html",
        "thesis.txt",
    }
    with pytest.raises(ConfigError, match=f"--out: {first} is a file; name a folder"):
        explain(model, second, out=first)


def test_a_second_call_draws_the_same(model, tmp_path):
    images = [photo(tmp_path / "a.png", seed=1), photo(tmp_path / "b.png", 60, 30, seed=2)]
    for name in ("one", "two"):
        explain(model, images, out=tmp_path / name)
    for file in (tmp_path / "one").rglob("*.png"):
        assert file.read_bytes() == (tmp_path / "two" / file.relative_to(tmp_path / "one")).read_bytes()


def test_hashes_take_the_place_of_every_name(model, image_folder, tmp_path):
    (image_folder / "cats" / "2.png").write_bytes(b"no image")
    told = explain(model, image_folder, out=tmp_path / "out", hash_ids=True, map=image_folder)
    texts = [
        told["warnings"][0],
        (tmp_path / "out" / "index.html").read_text(),
        (tmp_path / "out" / "explain.json").read_text(),
    ]
    for text in texts:
        assert "cats" not in text and "dogs" not in text and str(image_folder) not in text
    assert re.fullmatch(r"[0-9a-f]{10}", told["images"][0]["name"])
    assert sorted(told["map"]["classes"].values()) == [5, 6]


def test_a_run_that_tells_no_names_has_its_way(toy, image_folder, tmp_path):
    run = api.run(toy(run={"steps": 1}, report={"hash_ids": True})).folder
    for number, source in enumerate((run, run / "export", next((run / "checkpoints").glob("[0-9]*")))):
        told = explain(source, image_folder / "cats", out=tmp_path / f"out{number}", limit=1)
        assert re.fullmatch(r"[0-9a-f]{10}", told["images"][0]["name"])


def test_a_config_that_tells_no_names_has_its_way(toy, image_folder, tmp_path):
    for name, hides in (("open", False), ("hidden", True)):
        config = toy(
            run={"name": name},
            report={"hash_ids": hides},
            data={"name": "image-folder", "path": str(image_folder), "split": None},
        )
        (tmp_path / f"{name}.toml").write_text(api.to_toml(config))
    told = explain(tmp_path / "hidden.toml", image_folder / "cats", out=tmp_path / "hidden", limit=1)
    assert re.fullmatch(r"[0-9a-f]{10}", told["images"][0]["name"])
    told = explain(tmp_path / "open.toml", image_folder, out=tmp_path / "mapped", limit=1, map=tmp_path / "hidden.toml")
    assert told["images"][0]["name"] == "cats/0.png"
    assert (
        all(re.fullmatch(r"[0-9a-f]{10}", name) for name in told["map"]["classes"]) and len(told["map"]["classes"]) == 2
    )


def test_a_config_of_stages_has_no_model_of_its_own(toy, tmp_path):
    text = api.to_toml(toy()) + '\n[[stage]]\nname = "one"\n[[stage]]\nname = "two"\n'
    (tmp_path / "cells.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        explain(tmp_path / "cells.toml", photo(tmp_path / "a.png"), out=tmp_path / "out")
    assert str(caught.value) == (
        f"stage: {tmp_path}/cells.toml: has the stages one, two, each with a model of its own; run it and name a stage's folder, such as "
        f"{tmp_path}/runs/cells/two"
    )


def test_names_of_classes_are_shown_as_they_are(monkeypatch):
    from matplotlib.figure import Figure

    from dinomx_interpret import scatter

    shown, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *rest, **more: (save(figure, *rest, **more), shown.append(figure))
    )
    names = ["_a", "$_$", "100$_^$", "plain", "__", "_a"]
    places = np.random.default_rng(0).normal(size=(6, 2))
    scatter.draw(places, names, [Image.new("RGB", (8, 8))] * 6, ("x", "y"), scatter.LIGHT)
    texts = [text.get_text() for text in shown[0].legends[0].get_texts()]
    assert texts == ["$_$ (1)", "100$_^$ (1)", "__ (1)", "_a (2)", "plain (1)"]


def test_any_channels_are_shown_as_red_green_and_blue(tmp_path):
    model = save_bright(tmp_path / "model", "vit", channels=5)
    planes = np.stack([np.full((32, 32), 50 * n, np.uint8) for n in range(5)], -1)
    np.save(tmp_path / "five.npy", planes)
    for channels, expected in (((4, 0, 2), (200, 0, 100)), ((3,), 150), ((), (0, 50, 100)), ((1, 2), (50, 100, 0))):
        told = explain(model, tmp_path / "five.npy", out=tmp_path / "out", channels=channels)
        assert Image.open(tmp_path / "out" / "01-five" / "image.png").getpixel((3, 3)) == expected
    assert told["shown"] == "shown: channels 1 as red, 2 as green, of 5"


def test_a_manifest_names_images_and_labels_of_a_map(model, image_folder, tmp_path):
    lines = [f"{path},{'x' if n % 2 else ''}" for n, path in enumerate(sorted(image_folder.rglob("*.png")))]
    (tmp_path / "some.csv").write_text("\n".join(["path,label", *lines[:5]]))
    told = explain(model, tmp_path / "some.csv", out=tmp_path / "out", map=tmp_path / "some.csv")
    assert told["found"] == 5
    assert told["map"] == {
        "images": 5, "found": 5, "projection": "PCA; with umap-learn installed, UMAP", "classes": {"no label": 3, "x": 2}, "unreadable": 0,
    }  # fmt: skip


def test_a_map_lays_out_the_data_of_a_config_and_leaves_out_what_cannot_be_read(toy, tmp_path):
    (tmp_path / "cells.toml").write_text(api.to_toml(toy()))
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 3).save(tmp_path / "digit.png")
    told = explain(tmp_path / "cells.toml", tmp_path / "digit.png", out=tmp_path / "out", map=tmp_path / "cells.toml")
    assert told["map"]["images"] == told["map"]["found"] > 1000 and set(told["map"]["classes"]) == set("0123456789")
    assert Image.open(tmp_path / "out" / "map.png").width > 800
    (tmp_path / "few").mkdir()
    photo(tmp_path / "few" / "a.png")
    with pytest.raises(ConfigError) as caught:
        explain(tmp_path / "cells.toml", tmp_path / "digit.png", out=tmp_path / "out", map=tmp_path / "few")
    assert str(caught.value) == f"--map: {tmp_path}/few: a map needs three images that can be read or more; 1 of 1 can"


def test_umap_lays_out_the_map_where_it_is_installed(model, image_folder, tmp_path, monkeypatch):
    asked = {}

    class Umap:
        def __init__(self, **options):
            asked.update(options)

        def fit_transform(self, features):
            asked["shape"] = features.shape
            return features[:, :2]

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Umap))
    told = explain(model, image_folder, out=tmp_path / "out", limit=1, map=image_folder)
    assert told["map"]["projection"] == "UMAP of cosines; distances between far groups mean little"
    assert asked == {"n_neighbors": 11, "metric": "cosine", "random_state": 0, "n_jobs": 1, "shape": (12, 16)}


def test_features_that_are_not_finite_are_refused(model, tmp_path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    name = next(name for name in tensors if name.endswith("layernorm.weight"))
    save_file({**tensors, name: tensors[name] * torch.nan}, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(TrainingError) as caught:
        explain(model, photo(tmp_path / "a.png"), out=tmp_path / "out")
    assert str(caught.value) == "the model's features are not finite: it has diverged, or its weights are damaged"
