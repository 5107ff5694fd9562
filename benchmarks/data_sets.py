"""The data sets of `data_path.py`: files of many kinds, the same on every machine, and the config that reads each as training would."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from make_images import picture

PHOTOS, SIDE, SLICES, VOLUMES, PAGES, PLACES = 64, 512, 48, 8, 12, 64
VOLUME = (256, 256, 96)  # voxels of int16: 12 MB each
Tables = dict[str, Any]


def smooth(rng: np.random.Generator, shape: tuple[int, ...], high: int) -> np.ndarray:
    """Whole numbers below `high` with coarse and fine structure, float64."""
    from PIL import Image

    planes = []
    for _ in range(int(np.prod(shape[:-2], dtype=int))):
        total = rng.normal(0, 0.03, shape[-2:])
        for scale in (4, 12, 40):
            coarse = Image.fromarray(rng.random((scale, scale)).astype(np.float32))
            total += np.asarray(coarse.resize(shape[:-3:-1], Image.Resampling.BICUBIC)) / scale**0.5
        planes.append((total - total.min()) / np.ptp(total) * (high - 1))
    return np.round(np.stack(planes)).reshape(shape)


def photos(folder: Path, ending: str) -> Tables:
    """RGB of 500 x 375 pixels."""
    for number in range(PHOTOS):
        image = picture(np.random.default_rng(number), 500).crop((0, 60, 500, 435))
        image.save(folder / f"{number:03}{ending}", **({"quality": 90} if ending == ".jpg" else {}))
    return {"data": {"name": "image-folder", "path": str(folder)}}


def shards(folder: Path) -> Tables:
    """The same PNGs in tars, read in random order."""
    from dinomx_core import api
    from dinomx_core.builtin.pack import pack
    from dinomx_core.training.construct import construct

    files = folder / "files"
    files.mkdir()
    plan = api.plan(config_of(photos(files, ".png")))
    pack(construct(plan.spec.data), plan.data, folder / "tars", 16)
    return {"data": {"name": "shards", "path": str(folder / "tars")}}


def dicom(folder: Path) -> Tables:
    """A CT series, 16 bits, not compressed."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    rng = np.random.default_rng(0)
    study, series = (generate_uid(entropy_srcs=[name]) for name in ("study", "series"))
    for number in range(SLICES):
        header = Dataset()
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = CTImageStorage
        header.SOPInstanceUID = generate_uid(entropy_srcs=[str(number)])
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
        header.StudyInstanceUID, header.SeriesInstanceUID, header.PatientID = study, series, "one"
        header.Modality, header.InstanceNumber = "CT", number + 1
        header.Rows = header.Columns = SIDE
        header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 12, 11, 0
        header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.RescaleSlope, header.RescaleIntercept, header.PixelSpacing = "1", "-1024", ["0.7", "0.7"]
        header.ImagePositionPatient, header.ImageOrientationPatient = [0, 0, number], [1, 0, 0, 0, 1, 0]
        header.PixelData = smooth(rng, (SIDE, SIDE), 4096).astype("<u2").tobytes()
        header.save_as(folder / f"{number:03}.dcm", enforce_file_format=True)
    data = {"name": "image-folder", "path": str(folder), "channels": 1, "reader": {"name": "dicom"}}
    return {
        "data": data,
        "intensity": {"name": "window", "windows": ["lung"]},
        "augmentation": {"name": "ct"},
    }


def nifti(folder: Path, ending: str, cache: int) -> Tables:
    """MR volumes, one after another larger than a small cache."""
    import nibabel
    from nibabel.openers import Opener

    Opener.default_compresslevel = 1
    rng = np.random.default_rng(0)
    for number in range(VOLUMES):
        voxels = smooth(rng, (VOLUME[2], *VOLUME[:2]), 1000).transpose(1, 2, 0).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), folder / f"{number}{ending}")
    data = {"name": "image-folder", "path": str(folder), "channels": 1, "reader": {"name": "nifti", "cache": cache}}
    return {"data": data, "intensity": {"name": "percentiles"}, "augmentation": {"name": "mri"}}


def tiff(folder: Path) -> Tables:
    """OME-TIFF of four channels, 16 bits."""
    import tifffile

    rng = np.random.default_rng(0)
    for number in range(PAGES):
        planes = smooth(rng, (4, SIDE, SIDE), 20000).astype(np.uint16)
        tifffile.imwrite(folder / f"{number}.ome.tif", planes, metadata={"axes": "CYX"})
    data = {"name": "image-folder", "path": str(folder), "reader": {"name": "tiff"}}
    return {"data": data, "intensity": {"name": "percentiles"}, "augmentation": {"name": "microscopy"}}


def places(folder: Path, files: list[str], size: int, side: int) -> Tables:
    """A manifest of squares around centres in files of so many pixels a side."""
    rng = np.random.default_rng(1)
    with (folder / "places.csv").open("w", newline="", encoding="utf-8") as text:
        writer = csv.writer(text)
        writer.writerow(["path", "x", "y"])
        for name in files:
            writer.writerows([name, *rng.integers(side // 2, size - side // 2, 2).tolist()] for _ in range(PLACES))
    return {"name": "manifest", "path": str(folder / "places.csv"), "centre": ["x", "y"], "side": side}


def cells(folder: Path, how: Tables) -> Tables:
    """Squares of 96 pixels in OME-TIFF of 2048 x 2048 pixels and four channels."""
    import tifffile

    rng = np.random.default_rng(0)
    for number in range(2):
        planes = smooth(rng, (4, 2048, 2048), 20000).astype(np.uint16)
        tifffile.imwrite(folder / f"{number}.ome.tif", planes, metadata={"axes": "CYX"}, **how)
    data = places(folder, ["0.ome.tif", "1.ome.tif"], 2048, 96)
    crops = {"globals": {"size": 96}, "locals": {"size": 48}}
    return {
        "data": {**data, "reader": {"name": "tiff"}},
        "intensity": {"name": "percentiles"},
        "augmentation": {"name": "microscopy", **crops},
    }


def bands(folder: Path) -> Tables:
    """Squares of 24 pixels in an array of 145 x 145 pixels and 200 bands, as `examples/fields.toml` has them."""
    np.save(folder / "bands.npy", np.random.default_rng(0).integers(0, 9700, (145, 145, 200), dtype=np.uint16))
    sizes = {"globals": {"size": 24, "area": [0.5, 1.0]}, "locals": {"size": 12, "count": 4, "area": [0.2, 0.5]}}
    return {
        "data": places(folder, ["bands.npy"], 145, 24),
        "intensity": {"name": "full-range", "range": [0, 9700]},
        "augmentation": {"name": "multispectral", **sizes},
        "backbone": {"patch_size": 4},
    }


def config_of(tables: Tables) -> Tables:
    """A run's config: DINO's recipe, whose augmentation is `multicrop` with 2 x 224 and 8 x 96 pixels unless the tables say another."""
    return {
        "recipe": "dinov1",
        "run": {"batch_size": 8, "precision": "float32", "device": "cpu", "steps": 1000},
        "loader": {"workers": 0},
        **tables,
    }


SETS: dict[str, Callable[[Path], Tables]] = {
    "PNG, RGB 500 x 375": lambda folder: photos(folder, ".png"),
    "JPEG, RGB 500 x 375": lambda folder: photos(folder, ".jpg"),
    "the PNGs in shards": shards,
    "DICOM, CT 512 x 512": dicom,
    "NIfTI .nii.gz, cached": lambda folder: nifti(folder, ".nii.gz", 1024),
    "NIfTI .nii, mapped": lambda folder: nifti(folder, ".nii", 1024),
    "NIfTI .nii.gz, cache of 2 of 8 volumes": lambda folder: nifti(folder, ".nii.gz", 26),
    "OME-TIFF, 4 x 512 x 512": tiff,
    "cells of 96 px, TIFF untiled": lambda folder: cells(folder, {}),
    "cells of 96 px, TIFF tiled": lambda folder: cells(folder, {"tile": (256, 256)}),
    "cells of 96 px, TIFF tiled, deflated": lambda folder: cells(folder, {"tile": (256, 256), "compression": "zlib"}),
    "200 bands .npy, squares of 24 px": bands,
}
