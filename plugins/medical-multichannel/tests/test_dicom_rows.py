"""Rows of a manifest that name DICOM files, several of them the same one; and to whom slices belong."""

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from dinomx_core import ConfigError, DataError, api
from dinomx_core.builtin.picture_options import ImageFolder, ManifestFile
from dinomx_core.builtin.picture_sets import find_folder, find_rows
from dinomx_core.builtin.pictures import read
from dinomx_core.declare.values import Chosen
from dinomx_medical_multichannel.dicom import DicomReader
from dinomx_medical_multichannel.plugin import Dicom, dinomx_readers


@pytest.fixture
def chosen():
    return Chosen("dicom", next(dinomx_readers()), Dicom())


@pytest.fixture
def scans(tmp_path):
    """A function that writes a patient's slices, in a folder of their own, and of which the study and patient are said."""

    def write(patient, study, count=4):
        folder = tmp_path / "scans" / study
        folder.mkdir(parents=True)
        for at in range(count):
            data = dcmread(get_testdata_file("CT_small.dcm", download=False))
            data.PatientID, data.StudyInstanceUID, data.SeriesInstanceUID = patient, f"1.2.{study}", f"1.2.{study}.1"
            data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"1.2.{study}.1.{at}"
            data.ImagePositionPatient = [0, 0, at]
            data.PixelData = (data.pixel_array // 2 + at).astype(np.int16).tobytes()
            data.save_as(folder / f"{at}.dcm")
        return tmp_path / "scans"

    return write


def test_rows_of_one_file_are_images_of_their_own(tmp_path, scans, chosen):
    scans("P", "1", 2)
    rows = ["path,left,top,width,height,finding"]
    rows += [f"scans/1/{at}.dcm,{left},8,16,16,{name}" for at in (1, 0) for left, name in ((0, "node"), (40, "cyst"))]
    (tmp_path / "boxes.csv").write_text("\n".join(rows))
    pictures = find_rows(
        ManifestFile(
            path=str(tmp_path / "boxes.csv"), reader=chosen, label="finding", box=["left", "top", "width", "height"]
        )
    )
    reader = DicomReader(Dicom())
    assert [pictures.id(i) for i in range(4)] == [
        "scans/1/0.dcm@8,0,16,16", "scans/1/0.dcm@8,40,16,16", "scans/1/1.dcm@8,0,16,16", "scans/1/1.dcm@8,40,16,16",
    ]  # fmt: skip
    assert [pictures.classes[label] for label in pictures.labels] == ["node", "cyst", "node", "cyst"]
    for image, (at, left) in enumerate([(0, 0), (0, 40), (1, 0), (1, 40)]):
        whole = reader.read(tmp_path / f"scans/1/{at}.dcm").pixels
        np.testing.assert_array_equal(read(pictures, reader, image).pixels, whole[:, 8:24, left : left + 16])


def test_neighbours_of_rows_that_name_one_file_are_the_series(tmp_path, scans, chosen):
    scans("P", "1", 3)
    rows = ["path,left,top,width,height", *(f"scans/1/{at}.dcm,{left},0,8,8" for at in range(3) for left in (0, 9))]
    (tmp_path / "boxes.csv").write_text("\n".join(rows))
    pictures = find_rows(
        ManifestFile(
            path=str(tmp_path / "boxes.csv"), reader=chosen, neighbours=1, box=["left", "top", "width", "height"]
        )
    )
    found = [[pictures.files[number][-5] for number, _ in planes] for planes in pictures.planes.tolist()]
    assert found == [list("001"), list("001"), list("012"), list("012"), list("122"), list("122")]


def test_columns_of_dicom_files_are_channels_row_by_row(tmp_path, scans, chosen):
    scans("P", "1", 3)
    scans("P", "2", 3)
    rows = ["early,late", *(f"scans/1/{at}.dcm,scans/2/{at}.dcm" for at in (2, 0, 1))]
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    pictures = find_rows(ManifestFile(path=str(tmp_path / "pairs.csv"), reader=chosen, columns=["early", "late"]))
    found = [[pictures.files[number] for number, _ in planes] for planes in pictures.planes.tolist()]
    assert found == [[f"scans/1/{at}.dcm", f"scans/2/{at}.dcm"] for at in (2, 0, 1)]


def test_rows_whose_frame_is_not_there_are_named(tmp_path, scans, chosen):
    scans("P", "1", 1)
    (tmp_path / "frames.csv").write_text("path,at\nscans/1/0.dcm,0\nscans/1/0.dcm,7\n")
    pictures = find_rows(ManifestFile(path=str(tmp_path / "frames.csv"), reader=chosen, frame="at"))
    assert len(pictures) == 1
    assert pictures.faults == ("line 3: scans/1/0.dcm has no frame 7, or it is empty and skipped",)
    (tmp_path / "frames.csv").write_text("path,at\nscans/1/0.dcm,0.5\n")
    with pytest.raises(DataError) as raised:
        find_rows(ManifestFile(path=str(tmp_path / "frames.csv"), reader=chosen, frame="at"))
    assert str(raised.value) == f'{tmp_path}/frames.csv: column "at" names no frame that its row\'s file has'


def test_slices_without_a_patient_stay_together_by_study(scans, chosen):
    for study in range(12):
        folder = scans("", str(study))
    sides = [
        find_folder(ImageFolder(path=str(folder), labels="none", reader=chosen, part=part, holdout=0.5))
        for part in ("train", "test")
    ]
    studies = [{name.split("/")[0] for name in map(side.id, range(len(side)))} for side in sides]
    assert studies[0] and studies[1] and not studies[0] & studies[1]
    assert sum(map(len, sides)) == 48
    assert "12 series do not say their patient; each study is a group of its own" in sides[0].notes


def test_data_with_more_broken_files_than_a_run_allows_are_measured(tmp_path, scans):
    scans("P", "1", 3)
    (tmp_path / "scans/1/broken.dcm").write_bytes(b"nothing")
    config = {
        "recipe": "dinov1-small",
        "run": {"steps": 2, "batch_size": 2},
        "data": {"name": "image-folder", "path": str(tmp_path / "scans"), "reader": {"name": "dicom"}},
        "intensity": {"name": "window", "windows": ["bone"]},
        "augmentation": {"name": "ct", "globals": {"size": 32}, "locals": {"size": 16}},
    }
    with pytest.raises(ConfigError, match="1 file cannot be read, beside 3 images"):
        api.plan(config)
    api.measure(config, out=tmp_path / "report", pictures=False)
    assert "broken.dcm: is no DICOM file" in (tmp_path / "report/index.html").read_text("utf-8")
