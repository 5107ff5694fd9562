"""`dinomx data --statistics` and `dinomx init` with readers and intensities of this package."""

import copy
import tomllib

import attrs
import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from dinomx_core import api
from dinomx_core.planning.plan import Env
from dinomx_medical_multichannel.intensities import read_statistics


@pytest.fixture
def plates(tmp_path):
    """TIFFs of two channels from two plates, one twice as bright, and a manifest of them."""
    rng = np.random.default_rng(0)
    rows = ["path,plate"]
    for number in range(12):
        plate = "AB"[number % 2]
        pixels = rng.normal(500, 50, (2, 32, 32)) * (1 + number % 2)
        tifffile.imwrite(
            tmp_path / f"{number}.tif", pixels.astype(np.uint16), metadata={"axes": "CYX"}, photometric="minisblack"
        )
        rows.append(f"{number}.tif,{plate}")
    (tmp_path / "plates.csv").write_text("\n".join(rows))
    return tmp_path / "plates.csv"


def config_of(plates, intensity):
    return {
        "recipe": "dinov1-small",
        "run": {"steps": 1, "batch_size": 4, "out": str(plates.parent / "runs"), "threads": 1},
        "loader": {"workers": 0},
        "data": {"name": "manifest", "path": str(plates), "group": "plate", "reader": {"name": "tiff"}},
        "intensity": intensity,
        "augmentation": {"name": "microscopy", "globals": {"size": 16}, "locals": {"size": 8, "count": 2}},
        "backbone": {"depth": 1, "width": 32, "heads": 2},
    }


def test_statistics_of_groups_are_what_z_score_reads(plates):
    file = plates.parent / "stats.json"
    config = config_of(plates, {"name": "z-score", "of": "group", "statistics": str(file)})
    report = api.measure(config, out=plates.parent / "report", statistics=file, sheet=2)
    groups = read_statistics(str(file))
    assert sorted(groups) == ["A", "B"] and report["statistics"]["groups"] == 2
    for name, (mean, std) in groups.items():
        factor = 1 + (name == "B")
        assert mean.shape == std.shape == (2, 1, 1)
        assert mean.flatten().tolist() == pytest.approx([500 * factor] * 2, rel=0.01)
        assert std.flatten().tolist() == pytest.approx([50 * factor] * 2, rel=0.03)
    assert [channel["mean"] for channel in report["after"]] == pytest.approx([0, 0], abs=1e-3)
    assert [channel["std"] for channel in report["after"]] == pytest.approx([1, 1], abs=1e-3)
    assert report["cut"] is None and "the middle 98% of each channel go from black to white" in report["rule"]


def test_given_statistics_can_be_measured_before_they_are_given(plates):
    file = plates.parent / "stats.json"
    intensity = {"name": "z-score", "of": "given", "slope": 0.5, "intercept": 10.0}
    report = api.measure(config_of(plates, intensity), out=plates.parent / "report", statistics=file)
    assert report["statistics"]["mean"] == pytest.approx([385, 385], rel=0.01)
    assert "needs 1 or 2 numbers, got 0" in report["warnings"][0] and report["after"] == []


def test_what_windows_cut_off_is_told(plates):
    ranges = [[0, 600], [0, 5000]]
    report = api.measure(
        config_of(plates, {"name": "window", "ranges": ranges}), out=plates.parent / "report", channels=(0, 2)
    )
    assert [channel["name"] for channel in report["after"]] == [f"window {w} of {c}" for w in (1, 2) for c in (0, 1)]
    assert report["cut"]["above"] == pytest.approx(0.26, abs=0.02) and report["cut"]["below"] == 0
    told = [warning for warning in report["warnings"] if warning.startswith("the intensity cuts off: 2")]
    assert len(told) == 1 and "of the pixels lie above what it shows and become white" in told[0]


def written(folder, monkeypatch, name, **asked):
    monkeypatch.chdir(folder)
    done = api.init(name, env=attrs.evolve(Env.here(), device="cpu", cores=2, gpus=0), **asked)
    return tomllib.loads(done["text"]), done


def trains(done):
    short = ["run.steps=1", "run.batch_size=2", "run.threads=1", "loader.workers=0", "backbone.depth=1"]
    assert (api.run(done["file"], overrides=short).export / "config.json").exists()


def test_volumes_of_several_contrasts_become_channels_of_slices(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    (tmp_path / "brains").mkdir()
    for subject in range(3):
        for contrast in ("t1", "flair"):
            volume = np.zeros((40, 44, 5), np.int16)
            volume[5:35, 5:35] = rng.integers(100, 2000, (30, 30, 5))
            nibabel.save(
                nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "brains" / f"sub-{subject:02}_{contrast}.nii.gz"
            )
    config, done = written(tmp_path, monkeypatch, "brains")
    assert config["data"]["stack"] == ["_flair.", "_t1."] and config["data"]["reader"]["name"] == "nifti"
    assert config["data"]["group"] == "(?i)(?:patient|subject|sub|case)[-_]?[0-9]+"
    assert (config["augmentation"]["name"], config["intensity"]["name"]) == ("mri", "percentiles")
    assert done["seen"][0] == "15 images, 40 x 44 px, 2 channel(s), int16"
    trains(done)


def test_ct_gets_a_window_in_hu(tmp_path, monkeypatch):
    (tmp_path / "ct").mkdir()
    dataset, series = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False)), generate_uid()
    for number in range(4):
        one = copy.deepcopy(dataset)
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        one.SeriesInstanceUID, one.ImagePositionPatient, one.InstanceNumber = series, [0, 0, number], number
        one.save_as(tmp_path / "ct" / f"{number:04}")
    config, done = written(tmp_path, monkeypatch, "ct")
    assert config["data"]["reader"] == {"name": "dicom"} and config["augmentation"]["name"] == "ct"
    assert config["intensity"] == {"name": "window", "windows": ["soft-tissue"]}
    trains(done)


def test_many_pages_and_channels_are_microscopy(plates, monkeypatch):
    config, done = written(plates.parent, monkeypatch, "plates.csv")
    assert config["augmentation"]["name"] == "microscopy" and config["data"]["reader"] == {"name": "tiff"}
    assert config["data"]["group"] == "plate"
    trains(done)
