"""Images as the model's own were read: slices of DICOM series in windows, with their neighbours as channels."""

import json

import pytest
from PIL import Image

from dinomx_core import DataError, api
from dinomx_interpret import explain

pydicom = pytest.importorskip("pydicom")
TINY = {
    "recipe": "dinov1-small",
    "loader": {"workers": 0},
    "backbone": {"width": 32, "depth": 1, "heads": 2},
    "head": {"dino": {"prototypes": 32, "hidden": 16, "bottleneck": 8}},
    "augmentation": {"name": "ct", "globals": {"size": 32}, "locals": {"size": 16, "count": 1}},
    "intensity": {"name": "window", "windows": ["soft-tissue"]},
}


@pytest.fixture
def scans(tmp_path):
    """A CT series of three slices."""
    from pydicom.data import get_testdata_file

    folder = tmp_path / "scans"
    folder.mkdir()
    for number in range(3):
        ds = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.{number}"
        ds.ImagePositionPatient, ds.InstanceNumber = [0, 0, number], number + 1
        ds.save_as(folder / f"{number}.dcm")
    return folder


@pytest.mark.slow
def test_slices_with_neighbours_are_explained_from_a_folder_and_from_files(scans, tmp_path):
    data = {"name": "image-folder", "path": str(scans), "labels": "none", "reader": {"name": "dicom"}, "neighbours": 1}
    run = api.run({**TINY, "run": {"steps": 1, "batch_size": 2, "out": str(tmp_path / "runs")}, "data": data}).folder
    (scans / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 40)
    told = explain(run, scans, out=tmp_path / "folder", channels=(1,))
    assert [image["name"] for image in told["images"]] == ["0.dcm", "1.dcm", "2.dcm"]
    assert told["shown"] == "shown: channel 1 in grey, of 3" and told["images"][0]["grid"] == [8, 8]
    assert len(told["warnings"]) == 1 and told["warnings"][0].startswith("left out, 1 in all: broken.dcm: ")
    grey = Image.open(tmp_path / "folder" / "02-1" / "image.png")
    assert grey.mode == "L" and grey.getextrema()[1] > 200  # a window, not raw Hounsfield units
    files = explain(run, sorted(scans.glob("[0-9].dcm")), out=tmp_path / "files", channels=(1,))
    for name in ("attention-mean", "pca", "similarity", "image"):
        one, other = (tmp_path / place / "02-1" / f"{name}.png" for place in ("folder", "files"))
        assert one.read_bytes() == other.read_bytes(), name
    assert json.loads((tmp_path / "files" / "explain.json").read_text())["found"] == len(files["images"]) == 3


def test_a_model_whose_images_are_several_files_asks_for_their_folder(toy, tmp_path):
    import numpy as np

    (tmp_path / "cells").mkdir()
    for number in range(8):
        for channel in ("_a", "_b"):
            pixels = np.full((16, 16), 10 * number, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "cells" / f"{number}{channel}.png")
    data = {"name": "image-folder", "path": str(tmp_path / "cells"), "split": None, "stack": ["_a", "_b"]}
    config = toy(data=data, augmentation={"mean": [0.5], "std": [0.5]})
    (tmp_path / "two.toml").write_text(api.to_toml(config))
    assert explain(tmp_path / "two.toml", tmp_path / "cells", out=tmp_path / "out")["found"] == 8
    with pytest.raises(DataError) as caught:
        explain(tmp_path / "two.toml", tmp_path / "cells" / "1_a.png", out=tmp_path / "out")
    told = f"{tmp_path}/cells/1_a.png: this model's images are made of several files; name the folder that holds them"
    assert str(caught.value) == told
