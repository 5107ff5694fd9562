"""Runs and embeddings of medical files from end to end."""

import contextlib

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from pydicom.data import get_testdata_file

from dinomx_core import ConfigError, DataError, api

TINY = {
    "recipe": "dinov1-small",
    "run": {"steps": 1, "batch_size": 2},
    "loader": {"workers": 0},
    "backbone": {"width": 32, "depth": 1, "heads": 2},
    "head": {"dino": {"prototypes": 32, "hidden": 16, "bottleneck": 8}},
}
CROPS = {"globals": {"size": 32}, "locals": {"size": 16, "count": 1}}


@pytest.fixture
def scans(tmp_path):
    """Two patients' CT series of three slices, and a file that is broken."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for patient in range(2):
        for number in range(3):
            ds = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
            ds.PatientID, ds.SeriesInstanceUID = f"P{patient}", f"1.2.{patient}"
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.{patient}.{number}"
            ds.ImagePositionPatient = [0, 0, number]
            ds.InstanceNumber = number + 1
            ds.save_as(folder / f"{patient}-{2 - number}.dcm")
    (folder / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 40)
    return folder


def config(tmp_path, data, **tables):
    run = {**TINY["run"], "name": "run", "out": str(tmp_path / "runs")}
    return {**TINY, "run": run, "data": data, "augmentation": {"name": "ct", **CROPS}, **tables}


def test_a_run_on_dicom_embeds_dicom_with_its_own_windows(scans, tmp_path):
    data = {"name": "image-folder", "path": str(scans), "labels": "none", "reader": {"name": "dicom"}}
    table = config(
        tmp_path,
        data,
        intensity={"name": "window", "windows": ["soft-tissue", "lung"]},
        loader={"workers": 0, "max_unreadable": 0.2},
    )
    plan = api.plan(table)
    assert (plan.data.count, plan.data.channels, plan.data.sampled.units) == (6, 2, "HU")
    folder = api.run(table).folder
    done = api.embed(folder, scans, tmp_path / "e.npz")
    assert done["images"] == 6 and [text.partition(":")[0] for text in done["unreadable"]] == ["broken.dcm"]
    embedded = np.load(tmp_path / "e.npz")
    assert embedded["ids"].tolist() == [
        "0-2.dcm",
        "0-1.dcm",
        "0-0.dcm",
        "1-2.dcm",
        "1-1.dcm",
        "1-0.dcm",
    ]  # as they lie in the patient
    model = api.load(folder)
    ds = pydicom.dcmread(scans / "0-2.dcm")
    hu = torch.from_numpy(pydicom.pixels.apply_rescale(ds.pixel_array, ds).astype(np.float32))
    torch.testing.assert_close(
        model([hu[None]]).cls[0], torch.from_numpy(embedded["embeddings"][0]), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(model([scans / "0-2.dcm"]).cls, model([hu[None]]).cls)
    pooled = api.embed(folder, scans, tmp_path / "p.npz", pool="group")["pooled"]
    assert (pooled["groups"], pooled["column"]) == (2, "group")


def test_patients_of_dicom_files_are_split_by_their_ids(scans, tmp_path):
    data = {"name": "image-folder", "path": str(scans), "labels": "none", "reader": {"name": "dicom"}, "holdout": 0.5}
    found = {}
    for seed in range(8):
        for part in ("train", "test"):
            table = config(
                tmp_path,
                {**data, "part": part, "split_seed": seed},
                intensity={"name": "percentiles"},
                loader={"max_unreadable": 0.5},
            )
            with contextlib.suppress(ConfigError):  # nobody is on that side
                found[seed, part] = api.plan(table).data.count
    assert set(found.values()) == {3, 6}  # never a part of a patient
    assert all(found.get((seed, "train"), 0) + found.get((seed, "test"), 0) == 6 for seed in range(8))


def test_slices_of_volumes_are_embedded_by_name(tmp_path):
    folder = tmp_path / "volumes"
    folder.mkdir()
    for name in "ab":
        voxels = np.random.default_rng(0).integers(0, 4000, (34, 36, 4)).astype(np.int16)
        voxels[:, :, 0] = 0
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), folder / f"{name}.nii.gz")
    data = {
        "name": "image-folder",
        "path": str(folder),
        "neighbours": 1,
        "reader": {"name": "nifti", "skip_empty": 0.1},
    }
    table = config(
        tmp_path,
        data,
        intensity={"name": "z-score"},
        augmentation={"name": "mri", "mean": [0.0], "std": [1.0], **CROPS},
    )
    plan = api.plan(table)
    assert (plan.data.count, plan.data.channels) == (6, 3)
    assert "data: 2 slices are left out as empty (skip_empty = 0.1)" in plan.warnings
    assert (api.run(table).export / "config.json").exists()
    done = api.embed(folder_of(table, "run"), folder, tmp_path / "e.npz")
    embedded = np.load(tmp_path / "e.npz")
    assert done["images"] == 6 and embedded["ids"].tolist() == [
        f"{name}.nii.gz#{n}" for name in "ab" for n in (1, 2, 3)
    ]
    model = api.load(folder_of(table, "run"))
    planes = voxels_as_read(folder / "b.nii.gz")
    wanted = model([planes[[1, 2, 3]]]).cls[0]  # a slice and its neighbours, as in training
    torch.testing.assert_close(wanted, torch.from_numpy(embedded["embeddings"][4]), rtol=1e-4, atol=1e-5)
    with pytest.raises(
        DataError, match="b.nii.gz: this model's images are made of several planes or files; give them as arrays"
    ):
        model([folder / "b.nii.gz"])


def folder_of(table, name):
    return f"{table['run']['out']}/{name}"


def voxels_as_read(file):
    """Axial slices (Z, H, W) as the reader shows them."""
    from dinomx_medical_multichannel.nifti import NiftiReader
    from dinomx_medical_multichannel.plugin import Nifti

    reader = NiftiReader(Nifti())
    return torch.from_numpy(np.concatenate([reader.read(file, n).pixels for n in range(4)]).astype(np.float32))


def test_files_stacked_as_channels_are_embedded_so(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        for name in ("t1", "t2"):
            np.save(folder / f"{number}_{name}.npy", rng.random((40, 40), dtype=np.float32))
    table = config(tmp_path, {"name": "image-folder", "path": str(folder), "stack": ["_t1", "_t2"]})
    run = api.run(table).folder
    done = api.embed(run, folder, tmp_path / "e.npz")
    assert done["images"] == 3 and np.load(tmp_path / "e.npz")["ids"].tolist() == [f"{n}_t1.npy" for n in range(3)]
    rows = "".join(f"{folder}/{n}_t1.npy,{folder}/{n}_t2.npy\n" for n in range(3))
    (tmp_path / "m.csv").write_text("one,two\n" + rows)
    with pytest.raises(
        DataError, match='the model\'s images are files told apart by "_t1", "_t2"; give the folder that holds them'
    ):
        api.embed(run, tmp_path / "m.csv", tmp_path / "e.npz", path_column="one")
    table["run"]["name"] = "columns"
    table["data"] = {"name": "manifest", "path": str(tmp_path / "m.csv"), "columns": ["one", "two"]}
    other = api.run(table).folder
    assert api.embed(other, tmp_path / "m.csv", tmp_path / "m.npz")["images"] == 3
    with pytest.raises(
        DataError,
        match='is a folder, and the model\'s images are files of several columns; give a manifest with "one", "two"',
    ):
        api.embed(other, folder, tmp_path / "x.npz")
