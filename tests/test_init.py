"""`dinomx init`: a first config that the plan accepts and that trains, or a clear error."""

import csv
import tomllib

import attrs
import numpy as np
import pytest
from PIL import Image

from dinomx_core import ConfigError, DataError, api
from dinomx_core.builtin.propose.choices import crops_of
from dinomx_core.builtin.propose.columns import guess_columns
from dinomx_core.builtin.propose.machine import Machine
from dinomx_core.builtin.propose.stacks import guess_stack
from dinomx_core.planning.plan import Env
from tests.test_cli import dinomx

KINDS = "name a folder of images, a manifest (.csv, .jsonl, .parquet), tars, a MedMNIST .npz or a Hugging Face data set on disk"
CPU, GPU = Machine("cpu", 16e9, False, 4), Machine("cuda", 80e9, True, 16)


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A function that saves images below tmp_path, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)

    def save(names, shape=(48, 64, 3), kind=np.uint8, high=256):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, high, shape).astype(kind)).save(tmp_path / name)
        return tmp_path

    return save


def written(path, **asked):
    done = api.init(path, env=attrs.evolve(Env.here(), device="cpu", cores=4, gpus=0), **asked)
    with open(done["file"], "rb") as file:
        return tomllib.load(file), done


def pets():
    return [f"pets/{label}/{number}.png" for label in ("cat", "dog") for number in range(20)]


def test_a_folder_a_class_gets_colour_crops_and_knn_on_a_held_out_part(images):
    images(pets())
    config, done = written("pets")
    assert done["file"] == "pets.toml"
    assert done["seen"][0] == "40 images, 64 x 48 px, 3 channel(s), uint8, 2 classes"
    assert config["data"] == {"name": "image-folder", "path": "pets", "part": "train"}
    assert config["augmentation"]["name"] == "multicrop" and "intensity" not in config
    assert (config["augmentation"]["globals"]["size"], config["augmentation"]["locals"]["size"]) == (48, 24)
    assert config["backbone"] == {"patch_size": 8} and config["loader"] == {"workers": 3}
    assert config["run"]["precision"] == "float32" and config["run"]["batch_size"] == 16
    assert config["evaluate"]["knn"]["bank"]["part"] == "train" and config["evaluate"]["knn"]["query"]["part"] == "test"
    assert len((done["text"]).splitlines()) <= 40
    assert api.plan("pets.toml").batch.images == 16


def test_grey_images_of_16_bits_stay_grey_and_are_not_crushed(images):
    images([f"plates/{n}.png" for n in range(12)], (40, 40), np.uint16, 4000)
    config, _ = written("plates")
    assert config["data"]["channels"] == 1 and "evaluate" not in config
    assert len(config["augmentation"]["mean"]) == 1
    plan = api.plan("plates.toml")
    assert plan.data.channels == 1
    mean = api.measure("plates.toml", out="report", pictures=False)["suggested"]["mean"][0]
    assert config["augmentation"]["mean"][0] == pytest.approx(mean, abs=0.02)


def test_a_manifest_s_columns_are_guessed_by_name(images):
    names = [f"img/{n}.png" for n in range(30)]
    folder = images(names)
    with (folder / "list.csv").open("w") as file:
        rows = [(name, "ab"[n % 2], f"p{n // 3}") for n, name in enumerate(names)]
        csv.writer(file).writerows([("Image_Path", "Diagnosis", "patient_id"), *rows])
    config, _ = written("list.csv")
    asked = {"columns": ["Image_Path"], "label": "Diagnosis", "group": "patient_id"}
    assert config["data"] == {"name": "manifest", "path": "list.csv", **asked, "part": "train"}


def test_a_manifest_without_paths_is_refused(images):
    folder = images(["a.png"])
    (folder / "list.csv").write_text("name,age\nx,3\n")
    with pytest.raises(DataError) as error:
        written("list.csv")
    expected = 'list.csv: no column holds paths of images (below ., or absolute); its columns are "name", "age"'
    assert str(error.value) == expected


def test_coordinates_and_boxes_are_found(tmp_path):
    columns = {"file": ["a"], "X": [1], "Y": [2], "class": [1.5]}
    table, notes = guess_columns(tmp_path / "m.csv", columns)
    assert table == {"columns": ["file"], "centre": ["X", "Y"], "side": 64}
    assert notes == [
        'column "class" could be the label, but has missing values or other numbers, and is left out',
        "data.side = 64 px around each centre is a guess; set what your objects need",
    ]
    boxed = {"path": ["a"], "x": [1], "y": [1], "w": [3], "h": [4]}
    assert guess_columns(tmp_path / "m.csv", boxed)[0] == {"box": ["x", "y", "w", "h"]}


def test_columns_that_nothing_tells_of_are_named(tmp_path):
    columns = {"path": ["a"], "state": ["x"], "age": [1]}
    assert guess_columns(tmp_path / "m.csv", columns) == (
        {}, ['columns "state", "age" are not used; set data.label or data.group if one holds classes or patients'],
    )  # fmt: skip


def test_labelled_images_without_a_held_out_part_are_told(images):
    images(pets())
    api.pack(written("pets")[0] | {"data": {"name": "image-folder", "path": "pets"}}, "tars")
    config, done = written("tars")
    assert config["data"] == {"name": "shards", "path": "tars"} and "evaluate" not in config
    expected = (
        "there are labels, but no held-out part is known: name one in [evaluate.knn] to see how good features are"
    )
    assert done["notes"] == [expected]


def test_sub_folders_of_patients_are_groups_and_no_classes(images):
    images([f"scans/patient-{p:02}/{n}.png" for p in range(5) for n in range(4)])
    config, done = written("scans")
    assert (config["data"]["labels"], config["data"]["group"]) == ("none", "^[^/]+")
    assert (
        "the 5 sub-folders look like patients, not classes; take labels and group out if they are classes"
        in done["notes"]
    )


def test_folders_train_and_test_are_the_parts(images):
    images([f"pets/{part}/{label}/{n}.png" for part in ("train", "test") for label in "ab" for n in range(8)])
    config, _ = written("pets")
    assert config["data"]["path"] == "pets/train"
    assert (config["evaluate"]["knn"]["bank"]["path"], config["evaluate"]["knn"]["query"]["path"]) == (
        "pets/train",
        "pets/test",
    )


def test_names_that_differ_in_known_channels_are_stacked():
    files = [f"sub-{n:02}/sub-{n:02}_{kind}.png" for n in range(3) for kind in ("flair", "t1", "t2")]
    assert guess_stack(files).patterns == ("_flair.", "_t1.", "_t2.")
    assert guess_stack([f"w{n}_{c}_x.tif" for n in (3, 4) for c in ("c2", "c10", "c1")]).patterns == (
        "_c1_",
        "_c2_",
        "_c10_",
    )


@pytest.mark.parametrize(
    "files",
    [
        ["a_t1.png", "a_t2.png", "b_t1.png"],  # one image lacks a channel
        ["ann_left.png", "ann_right.png", "bob_left.png", "bob_right.png"],  # no names of channels
        ["1.png", "2.png", "3.png"],
        ["cat.png", "dog.png"],
    ],
)
def test_other_names_are_images_of_their_own(files):
    assert guess_stack(files).patterns == ()


def test_one_set_of_channels_alone_is_asked_about():
    guess = guess_stack(["mni_t1_x.nii.gz", "mni_t2_x.nii.gz"])
    assert guess.patterns == ()
    assert (
        guess.note
        == 'the names differ in t1, t2: if these are channels of one image, set data.stack = ["_t1_", "_t2_"]'
    )


@pytest.mark.parametrize(
    ("side", "machine", "expected"),
    [
        (300, CPU, (96, 40, 8)), (28, CPU, (28, 12, 4)), (8, CPU, (8, 0, 4)), (70, CPU, (64, 24, 8)),
        (300, GPU, (224, 96, 16)), (130, GPU, (128, 48, 16)), (28, GPU, (28, 12, 4)),
    ],
)  # fmt: skip
def test_crops_fit_the_images_the_patch_and_the_machine(side, machine, expected):
    size, local, patch = crops_of(side, machine)
    assert (size, local, patch) == expected
    assert size <= side and size % patch == 0 and local % patch == 0


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("nowhere", 'there is no file or folder "nowhere" (looked in {here})'),
        ("empty", f'no images in "empty"; it is empty; {KINDS}'),
        ("texts", f'no images in "texts"; 2 files of other kinds are there; {KINDS}'),
        ("texts/a.txt", f'"texts/a.txt" is a single file; {KINDS}'),
        ("one", '"one" holds 1 image(s); training compares images with each other and needs 4'),
    ],
)
def test_where_nothing_can_be_trained_on_the_error_says_why(images, path, expected):
    folder = images(["one/a.png"])
    (folder / "empty").mkdir()
    (folder / "texts").mkdir()
    for name in "ab":
        (folder / "texts" / f"{name}.txt").write_text("x")
    with pytest.raises(DataError) as error:
        written(path)
    assert str(error.value) == expected.replace("{here}", str(folder))
    assert not list(folder.glob("*.toml"))


def test_a_file_that_is_there_is_kept(images):
    images(pets())
    written("pets", steps=7)
    with pytest.raises(ConfigError) as error:
        written("pets")
    assert str(error.value) == "pets.toml is there already; --overwrite replaces it, --out names another"
    assert written("pets", steps=8, overwrite=True)[0]["run"]["steps"] == 8


def test_an_unknown_domain_is_refused(images):
    images(pets())
    with pytest.raises(ConfigError) as error:
        written("pets", domain="cats")
    assert str(error.value) == '--domain: expected one of ct, mri, xray, microscopy, multispectral, natural, got "cats"'


def test_where_nothing_can_be_held_out_only_the_evaluation_is_left_out(images):
    images([f"pets/{label}/0.png" for label in ("ant", "bee", "cat", "cow", "dog", "elk", "fox", "gnu")])
    config, done = written("pets")
    assert "evaluate" not in config and "part" not in config["data"]
    assert done["notes"] == [
        "no k-NN on held-out images: no image is in the test part: 8 groups, of which 0.2 are held out; change split_seed or holdout"
    ]


def test_a_gpu_gets_a_larger_model_and_bf16_where_it_has_it(images, monkeypatch):
    from dinomx_core.builtin.propose import machine

    images([f"big/{n}.png" for n in range(300)], (300, 300, 3), high=1)
    monkeypatch.setattr(machine, "gpu", lambda: (80e9, 9.0))
    env = attrs.evolve(Env.here(), device="cuda", cores=16, gpus=1)
    done = api.init("big", env=env)
    config = tomllib.loads(done["text"])
    assert (config["backbone"]["width"], config["backbone"]["patch_size"], config["run"]["precision"]) == (
        384,
        16,
        "bf16",
    )
    assert config["run"]["batch_size"] == 128 and config["augmentation"]["globals"]["size"] == 224
    monkeypatch.setattr(machine, "gpu", lambda: (6e9, 7.5))
    small = tomllib.loads(api.init("big", env=env, overwrite=True)["text"])
    assert small["run"]["precision"] == "float32" and small["run"]["batch_size"] < 128


def test_masks_beside_images_are_told(images):
    images([f"cells/{n}{end}.png" for n in range(4) for end in ("", "_mask")])
    _, done = written("cells")
    assert 'some names hold "mask": masks would be taken for images; move them elsewhere' in done["notes"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["colour", "tiny", "grey16", "medmnist"])
def test_what_is_written_trains(images, kind):
    folder = images(pets())
    path = "pets"
    if kind == "tiny":
        images([f"tiny/{n}.png" for n in range(12)], (9, 9))
        path = "tiny"
    if kind == "grey16":
        images([f"grey/{n}.png" for n in range(12)], (40, 40), np.uint16, 4000)
        path = "grey"
    if kind == "medmnist":
        rng = np.random.default_rng(0)
        arrays = {
            f"{part}_images": rng.integers(0, 256, (20, 28, 28), dtype=np.uint8) for part in ("train", "val", "test")
        }
        arrays |= {f"{part}_labels": rng.integers(0, 2, (20, 1)) for part in ("train", "val", "test")}
        np.savez(folder / "mnist.npz", **arrays)
        path = "mnist.npz"
    _, done = written(path)
    result = api.run(
        done["file"],
        overrides=["run.steps=2", "run.batch_size=4", "run.threads=1", "loader.workers=0", "backbone.depth=1"],
    )
    assert (result.export / "config.json").exists()


@pytest.mark.slow
def test_the_command_says_what_it_saw_and_what_comes_next(images, tmp_path):
    images(pets())
    done = dinomx("init", "pets", "--steps", "5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "saw          40 images, 64 x 48 px, 3 channel(s), uint8, 2 classes"
    assert lines[-4:] == [
        "wrote        pets.toml", "next         dinomx data pets.toml", "next         dinomx plan pets.toml",
        "next         dinomx run pets.toml",
    ]  # fmt: skip
