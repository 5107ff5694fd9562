"""The core and every plugin work from wheels, without the checkout."""

import json
import re
import shutil
import zipfile

import pytest

from tests.wheels import ROOT, done, purelib

pytestmark = pytest.mark.slow
PLUGINS = sorted(file.parent.name for file in ROOT.glob("plugins/*/pyproject.toml"))


def test_all_of_it_works_from_wheels(environment, tmp_path):
    environment.install("dinomx", *(f"dinomx-{name}" for name in PLUGINS))
    listed = json.loads(done(environment.run("dinomx", "plugins", "--json", cwd=tmp_path)))["plugins"]
    assert {plugin["name"] for plugin in listed} == {"builtin", *PLUGINS}
    assert not [plugin["error"] for plugin in listed if plugin["error"]]
    shutil.copy(ROOT / "examples/quickstart.toml", tmp_path)
    done(environment.run("dinomx", "run", "quickstart.toml", "--set", "run.steps=2", cwd=tmp_path))
    assert list(tmp_path.glob("runs/*/export/model.safetensors"))


def test_the_core_and_one_plugin_are_enough_and_others_are_named(environment, tmp_path):
    environment.install("dinomx", "dinomx-dinov1")
    shutil.copy(ROOT / "examples/quickstart.toml", tmp_path / "c.toml")
    done(environment.run("dinomx", "run", "c.toml", "--set", "run.steps=1", cwd=tmp_path))
    refused = environment.run("dinomx", "plan", "c.toml", "--set", "strategy.lora.rank=4", cwd=tmp_path)
    assert refused.returncode == 2
    assert 'strategy "lora" is not installed; install it with: pip install dinomx-lora' in refused.stderr


def test_installing_never_replaces_a_torch_that_is_there(environment):
    there = purelib(environment)
    (info,) = there.glob("torch-*.dist-info")
    info.unlink()
    cuda = there / "torch-2.9.0+cu128.dist-info"
    cuda.mkdir()
    (cuda / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.9.0+cu128\n")
    (cuda / "INSTALLER").write_text("pip\n")
    would = environment.would_install("dinomx", *(f"dinomx-{name}" for name in PLUGINS))
    assert sorted(would) == sorted(["dinomx-0.1.0", *(f"dinomx-{name}-0.1.0" for name in PLUGINS)])


def test_the_extra_all_is_every_plugin_and_format_as_the_readme_says(wheels):
    (wheel,) = wheels.glob("dinomx-0*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
    everything = set(re.findall(r"Requires-Dist: ([\w-]+)[^;\n]*; extra == 'all'", metadata))
    formats = {"onnx", "onnxruntime", "onnxscript", "pyarrow", "fsspec", "datasets"}
    assert everything == {*(f"dinomx-{name}" for name in PLUGINS), *formats}
    assert (
        '`pip install "dinomx[all]"`: the core, every plugin above, and ONNX, Parquet, URLs and Hugging Face data sets'
        in (ROOT / "README.md").read_text("utf-8")
    )
    assert "dinomx_core/registry.toml" in names
    assert any(name.startswith("dinomx_core/_template/") for name in names)
    assert not [name for name in names if "test_" in name and "_template" not in name]
