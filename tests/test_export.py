"""Exports, embeddings and what `load` opens."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel

import dinomx_core
from dinomx_core import ConfigError, DataError, api
from dinomx_core.builtin.families import FAMILIES, Hf, hf_shape
from dinomx_core.builtin.hf import build_hf
from dinomx_core.training.build import build
from dinomx_core.training.checkpoint import load_checkpoint
from dinomx_core.training.evaluation import make_encoder
from dinomx_core.training.export import PLAIN, write_onnx

ABOUT = {
    "intensity": PLAIN, "channels": 3, "image_size": 32, "network": "teacher", "step": 0, "start": None,
    "preprocessing": {"resize": 36, "crop": 32, "mean": [0.5], "std": [0.5]},
    "run": {"name": "x", "strategies": {}, "trained": 1, "losses": {"dino": "dino"}, "data": {"name": "digits", "images": 9, "classes": 0}, "steps": 1,
    "batch_size": 1, "passes": 1.0, "precision": "float32", "parameters": 1, "command": "dinomx run x.toml", "versions": {}},
}  # fmt: skip


def run_on(toy, image_folder, **changes):
    data = {"name": "image-folder", "path": str(image_folder), "split": None}
    knn = {"every": 2, "k": [1], "bank": dict(data), "query": dict(data, path=str(image_folder) + "/.")}
    for table in (data, knn["bank"], knn["query"]):
        table.pop("split")
    config = toy(
        data={**data, "split": None}, augmentation={"mean": [0.5], "std": [0.25]}, evaluate={"knn": knn}, **changes
    )
    config["checkpoint"] = {"every": 2, "keep_last": 5, "keep_best": "knn/accuracy@1"}
    return config, api.run(config)


def features_of(config, step, items, network="teacher"):
    """The run's own features: its parts built anew, its checkpoint put in, its own encoder."""
    parts = build(api.plan(config))
    load_checkpoint(parts, api.plan(config).run_dir / "checkpoints" / str(step))
    backbone = (parts.student if network == "student" else parts.teacher.network).backbone
    encoder = make_encoder(
        backbone, parts.plan.preprocessing, parts.plan.data.channels, parts.parallelism, parts.intensity
    )
    return encoder.encode([parts.data[i] for i in items])


@pytest.mark.slow
def test_export_load_embed_from_raw_files_equals_the_runs_own_features(toy, image_folder, tmp_path):
    config, result = run_on(toy, image_folder)
    for checkpoint, network in (("2", "teacher"), ("2", "student"), ("last", "teacher")):
        out = tmp_path / f"{checkpoint}-{network}"
        done = api.export(result.folder, out, checkpoint=checkpoint, network=network)
        assert done["step"] == (4 if checkpoint == "last" else 2)
        wanted = features_of(config, done["step"], range(12), network)
        for tokens, what in (("cls", wanted.cls), ("patches", wanted.patches), ("patch-mean", wanted.patches.mean(1))):
            api.embed(out, image_folder, tmp_path / "e.npz", tokens=tokens, batch_size=12)
            found = np.load(tmp_path / "e.npz")
            assert np.array_equal(found["embeddings"], what.numpy())
        assert list(found["ids"]) == [f"{c}/{n}.png" for c in ("cats", "dogs") for n in range(6)]
        assert list(found["labels"]) == ["cats"] * 6 + ["dogs"] * 6
        theirs = AutoModel.from_pretrained(out, add_pooling_layer=False)
        assert sum(p.numel() for p in theirs.parameters()) == api.plan(config).backbone.parameters
    assert not torch.equal(features_of(config, 2, [0], "student").cls, features_of(config, 2, [0]).cls)


def test_the_export_of_a_run_is_its_last_teacher_and_best_is_the_best(toy, image_folder, tmp_path):
    config, result = run_on(toy, image_folder)
    items = [image_folder / "cats" / "0.png"]
    assert torch.equal(api.load(result.folder)(items).cls, features_of(config, 4, [0]).cls)
    best = result.folder / "checkpoints" / "best"
    manifest = json.loads((best / "manifest.json").read_text())
    assert manifest["step"] == 0 and manifest["value"] == 1.0  # every query is in the bank: the first is never beaten
    done = api.export(result.folder, tmp_path / "best", checkpoint="best")
    assert done["step"] == 0
    assert torch.equal(api.load(tmp_path / "best")(items).cls, api.load(best)(items).cls)
    assert not torch.equal(api.load(tmp_path / "best")(items).cls, features_of(config, 4, [0]).cls)


def test_a_run_that_is_not_finished_loads_from_its_newest_checkpoint(toy, image_folder):
    import shutil

    config, result = run_on(toy, image_folder)
    shutil.rmtree(result.export)
    items = [image_folder / "cats" / "0.png"]
    assert torch.equal(api.load(result.folder)(items).cls, features_of(config, 4, [0]).cls)
    with pytest.raises(ConfigError, match='network: expected teacher or student, got "foo"'):
        api.load(result.folder, network="foo")
    assert torch.equal(
        api.load(result.folder, network="student")(items).cls, features_of(config, 4, [0], "student").cls
    )
    folder = result.folder / "checkpoints" / "2"
    assert torch.equal(api.load(folder, network="student")(items).cls, features_of(config, 2, [0], "student").cls)


def test_preprocessing_travels_and_says_the_same_to_transformers(toy, image_folder):
    config, result = run_on(toy, image_folder)
    plan = api.plan(config)
    loaded = api.load(result.export)
    assert loaded.preprocessing == plan.preprocessing
    said = json.loads((result.export / "preprocessor_config.json").read_text())
    assert said["size"] == {"shortest_edge": plan.preprocessing.resize} and said["crop_size"] == {
        "height": 16,
        "width": 16,
    }
    assert said["image_mean"] == [0.5] * 3 and said["image_std"] == [0.25] * 3 and said["do_center_crop"]


def test_the_model_card_tells_what_is_known_and_leaves_blanks(toy, image_folder):
    _, result = run_on(toy, image_folder)
    card = (result.export / "README.md").read_text()
    for part in (
        "library_name: transformers", "None: trained from scratch.", "12 images of 3 channels (`image-folder`), 2 classes",
        "4 steps of 8 images", "| knn/accuracy@1 |", "centre crop 16 px", 'dinomx_core.run("config.toml")',
        "## Intended use and limits", "[to be filled in",
    ):  # fmt: skip
        assert part in card, part
    assert card.startswith("---\n")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_goes_to_onnx(model_folder, tmp_path, family):
    pytest.importorskip("onnxruntime")
    options = Hf(weights=str(model_folder(family)))
    backbone = build_hf(options, hf_shape(options, 3, 32), 32).eval()
    backbone.warm_start()
    assert write_onnx(tmp_path, backbone, ABOUT, []) < 1e-4


@pytest.mark.slow
def test_onnx_gives_torchs_features(toy, image_folder, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    _, result = run_on(toy, image_folder)
    done = api.export(result.folder, tmp_path / "onnx", format="onnx")
    assert done["difference"] < 1e-4
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / "model.onnx"))
    pixels = torch.randn(5, 3, 16, 16)
    cls, patches = session.run(["cls", "patches"], {"pixels": pixels.numpy()})
    with torch.no_grad():
        tokens = api.load(result.folder).backbone(pixels)
    np.testing.assert_allclose(cls, tokens.cls, atol=1e-4)
    np.testing.assert_allclose(patches, tokens.patches, atol=1e-4)
    assert {p.name for p in (tmp_path / "onnx").iterdir()} == {
        "model.onnx",
        "dinomx.json",
        "preprocessor_config.json",
        "README.md",
    }


@pytest.mark.parametrize("tokens", ["cls", "patches"])
def test_parquet_holds_what_npz_holds(toy, image_folder, tmp_path, tokens):
    parquet = pytest.importorskip("pyarrow.parquet")
    _, result = run_on(toy, image_folder)
    for name in ("e.npz", "e.parquet"):
        api.embed(result.folder, image_folder, tmp_path / name, tokens=tokens, batch_size=5)
    found, table = np.load(tmp_path / "e.npz"), parquet.read_table(tmp_path / "e.parquet")
    assert table["id"].to_pylist() == list(found["ids"]) and table["label"].to_pylist() == list(found["labels"])
    assert np.array_equal(np.array(table["embedding"].to_pylist(), dtype=np.float32), found["embeddings"])


@pytest.mark.slow
def test_embed_takes_a_config_and_names_what_cannot_be_read(toy, image_folder, tmp_path, model_folder):
    (image_folder / "dogs" / "2.png").write_bytes(b"no image")
    config = toy(
        data={"name": "image-folder", "path": str(image_folder), "split": None},
        backbone={"name": "hf", "weights": str(model_folder("dinov2")), "width": None, "depth": None, "heads": None,
        "patch_size": None, "drop_path": None}, augmentation={"globals": {"size": 32}, "locals": {"size": 16}},
    )  # fmt: skip
    (tmp_path / "c.toml").write_text(api.to_toml(config))
    code = "from dinomx_core.cli import main; main()"
    words = ["embed", str(tmp_path / "c.toml"), str(image_folder), "--out", str(tmp_path / "e.npz")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"embedded     11 images, cls 11x32, in {tmp_path}/e.npz\n"
    assert f"warning: left out: {image_folder}/dogs/2.png: cannot be read as an image" in done.stderr
    assert "dogs/2.png" not in np.load(tmp_path / "e.npz")["ids"]


def test_bad_requests_are_refused_and_leave_nothing(toy, image_folder, tmp_path):
    _, result = run_on(toy, image_folder)
    run = result.folder
    for words, message in (
        ({"checkpoint": "7"}, r'--checkpoint: no checkpoint "7"; there are: 4, 2, best'),
        ({"network": "prophet"}, '--network: expected one of teacher, student, got "prophet"'),
        ({"format": "keras"}, '--format: expected one of huggingface, onnx, got "keras"'),
    ):
        with pytest.raises(ConfigError, match=message):
            api.export(run, tmp_path / "out", **words)
    with pytest.raises(DataError, match='holds no network "student", only teacher'):
        api.export(run, tmp_path / "out", checkpoint="best", network="student")
    with pytest.raises(ConfigError, match="holds something already; choose another"):
        api.export(run, image_folder)
    with pytest.raises(ConfigError, match="is no run folder with checkpoints"):
        api.export(image_folder, tmp_path / "out")
    file = run / "checkpoints" / "4" / "teacher.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(DataError, match="teacher.safetensors has .* bytes, not"):
        api.export(run, tmp_path / "out", checkpoint="4")
    assert not (tmp_path / "out").exists()
    for words, message in (
        ({"tokens": "words"}, 'tokens: expected one of cls, patch-mean, patches, got "words"'),
        ({"out": tmp_path / "e.csv"}, "expected a name that ends with .npz or .parquet"),
        ({"out": tmp_path / "no" / "e.npz"}, "there is no such folder to write to"),
        ({"data": tmp_path / "nowhere"}, "there is no folder"),
    ):
        with pytest.raises(DataError, match=message):
            api.embed(run, **{"data": image_folder, "out": tmp_path / "e.npz", **words})
    for broken in image_folder.rglob("*.png"):
        broken.write_bytes(b"no image")
    with pytest.raises(DataError, match="none of the 12 images can be read"):
        api.embed(run, image_folder, tmp_path / "e.npz")
    for broken in ("{", "{}", '{"backbone": {"name": "vit", "options": {"width": "wide"}}}'):
        (run / "export" / "dinomx.json").write_text(broken)
        with pytest.raises(DataError, match="dinomx.json: cannot be read"):
            api.load(run)
    assert not list(tmp_path.glob("*e.*")) and not list(tmp_path.glob(".e*"))


def test_images_turn_as_their_exif_says(toy, image_folder, tmp_path):
    _, result = run_on(toy, image_folder)
    array = np.asarray(Image.open(image_folder / "cats" / "0.png"))
    turned = Image.fromarray(np.rot90(array, 1).copy())  # stored turned left, to be shown turned right
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    model = api.load(result.folder)
    assert torch.equal(model([tmp_path / "turned.png"]).cls, model([image_folder / "cats" / "0.png"]).cls)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("dinov2", "dinov2"), ("dinov2-registers", "dinov2_with_registers"), ("dinov3-vit", "dinov3_vit")],
)
def test_backbones_of_the_methods_open_without_their_plugins(toy, name, kind):
    config = toy(run={"steps": 1})
    config["backbone"] = {"name": name, "width": 16, "depth": 2, "heads": 2, "patch_size": 4}
    folder = api.run(config).folder
    about = json.loads((folder / "export" / "dinomx.json").read_text())
    assert about["backbone"]["name"] == "hf" and about["backbone"]["options"]["family"] == kind
    pixels = torch.rand(2, 1, 16, 24)
    with torch.no_grad():
        theirs = AutoModel.from_pretrained(folder / "export").eval()(pixels).last_hidden_state
        ours = dinomx_core.load(folder).backbone(pixels)
        saved = dinomx_core.load(folder / "checkpoints" / "1").backbone(pixels)
    torch.testing.assert_close(ours.cls, theirs[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.patches, theirs[:, -24:], rtol=1e-4, atol=1e-5)
    assert torch.equal(saved.cls, ours.cls)
