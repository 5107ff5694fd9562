"""What holds of every reader: how it is declared, that it needs no torch, and that it keeps no more and more memory."""

import gc
import importlib
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydicom.data import get_testdata_file

from dinomx_core import PlaneReader
from dinomx_core.builtin import plugin as core
from dinomx_medical_multichannel import plugin
from dinomx_medical_multichannel.plugin import Dicom, Nifti, OmeZarr, Tiff, dinomx_readers

DECLARED = {reader.name: reader for module in (core, plugin) for reader in module.dinomx_readers()}
HERE = Path(__file__).parents[1]


def built(name, options):
    module, _, attribute = DECLARED[name].build.partition(":")
    return getattr(importlib.import_module(module), attribute)(options)


def test_every_declaration_builds_a_reader():
    assert [reader.name for reader in dinomx_readers()] == ["dicom", "nifti", "tiff", "ome-zarr"]
    for name, reader in DECLARED.items():
        assert isinstance(built(name, reader.options()), PlaneReader)
        assert reader.summary
        assert reader.index is None or reader.index(reader.options(), []).stacks == ()
    assert [name for name, reader in DECLARED.items() if reader.folders] == ["ome-zarr"]
    assert [name for name, reader in DECLARED.items() if not reader.suffixes] == ["dicom"]


def test_declarations_import_no_format_and_readers_no_torch():
    code = f"""
import sys
import dinomx_medical_multichannel.plugin as plugin
assert not set(sys.modules) & {{"pydicom", "nibabel", "tifffile", "zarr", "numpy", "torch"}}
for name in {[reader.build.partition(":")[0] for reader in DECLARED.values()]}:
    __import__(name)
for reader in plugin.dinomx_readers():
    reader.index(reader.options(), [])
assert not set(sys.modules) & {{"torch", "monai", "transformers"}}
"""
    path = os.pathsep.join([str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": path})


def resident():
    """MiB of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def volumes(folder):
    import nibabel

    for number in range(12):
        data = (np.random.default_rng(number).random((64, 64, 40)) * 1000).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), folder / f"{number}.nii.gz")
    return [(folder / f"{number}.nii.gz", frame) for number in range(12) for frame in range(40)]


def pages(folder):
    import tifffile

    for number in range(40):
        data = (np.random.default_rng(number).random((20, 64, 64)) * 255).astype(np.uint8)
        tifffile.imwrite(folder / f"{number}.tif", data, compression="zlib", photometric="minisblack")
    return [(folder / f"{number}.tif", frame) for number in range(40) for frame in range(20)]


def chunks(folder):
    group = pytest.importorskip("zarr").open_group(folder / "x.zarr", mode="w")
    group.create_array("0", data=np.random.default_rng(0).random((20, 64, 64)), chunks=(1, 32, 32))
    axes = [{"name": axis, "type": "space"} for axis in "zyx"]
    group.attrs["ome"] = {"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
    return [(folder / "x.zarr", frame) for frame in range(20)]


def frames(folder):
    file = Path(get_testdata_file("examples_ybr_color.dcm", download=False))
    return [(file, frame) for frame in range(30)] + [(Path(get_testdata_file("MR_small_RLE.dcm", download=False)), 0)]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize(
    ("name", "options", "make"),
    [
        ("nifti", Nifti(cache=4), volumes),
        ("tiff", Tiff(), pages),
        ("ome-zarr", OmeZarr(), chunks),
        ("dicom", Dicom(), frames),
    ],
)
def test_ten_thousand_planes_leave_nothing_behind(tmp_path, name, options, make):
    planes = make(tmp_path)
    reader, drawn = built(name, options), random.Random(0)
    held = []
    for count in (1000, 10_000):
        for file, frame in drawn.choices(planes, k=count):
            reader.read(file, frame)
        gc.collect()
        held.append(resident())
    assert held[1] - held[0] < 8
