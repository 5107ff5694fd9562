"""The doctor names what is wrong with a machine, and what to do."""

import json
import subprocess

import pytest
import torch
from typer.testing import CliRunner

from dinomx_core.cli import app
from dinomx_core.doctor import examine, findings, machine, packages
from tests.wheels import ROOT


def told(check):
    return [str(finding) for finding in check()]


def test_a_sound_machine(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    done = CliRunner().invoke(app, ["doctor", "--json"])
    found = json.loads(done.stdout)
    assert done.exit_code == 0
    assert {one["topic"] for one in found} >= {
        "python",
        "plugins",
        "packages",
        "torch",
        "gpu",
        "bf16",
        "cores",
        "memory",
        "disk",
        "hub",
    }
    assert [one["remedy"] for one in found if one["level"] == "ok"] == [""] * len(
        [one for one in found if one["level"] == "ok"]
    )
    assert next(one["text"] for one in found if one["topic"] == "torch").startswith(torch.__version__)


def test_broken_plugins_and_missing_packages(install, monkeypatch):
    install("bad", "import not_there")
    monkeypatch.setattr(packages, "installed", lambda name: {"torch": "1.9", "attrs": ""}.get(name, "9999"))
    assert (
        'BAD   plugins   dinomx-bad: needs the package "not_there"; install that, or remove the plugin: pip uninstall dinomx-bad'
        in told(packages.plugins)
    )
    assert [text for text in told(packages.required) if text.startswith("BAD")] == [
        'BAD   packages  attrs is missing; pip install "attrs>=25.1"',
        'BAD   packages  torch is 1.9, and >=2.6 is needed; pip install "torch>=2.6"',
    ]
    assert told(packages.extras) == []
    monkeypatch.setattr(packages, "installed", lambda name: "")
    assert "parquet (pyarrow), remote (fsspec)" in told(packages.extras)[0]


def test_a_torchvision_that_does_not_fit(monkeypatch, tmp_path):
    assert told(packages.torchvision) == []
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    monkeypatch.setattr(packages, "installed", lambda name: "0.20")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert told(packages.torchvision) == [
        "BAD   torch     torchvision 0.20 does not fit this torch and breaks transformers (RuntimeError: operator torchvision::nms does not "
        "exist); nothing here needs it: pip uninstall torchvision"
    ]


def driver(monkeypatch, tmp_path, script):
    """An nvidia-smi of our own."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(machine.shutil, "which", lambda name: str(program))


@pytest.mark.parametrize(("built", "words"), [(None, "is built without CUDA; install a torch with CUDA"), ("12.8", "is built for CUDA 12.8, and the driver is too old or hidden; update the driver")])  # fmt: skip
def test_a_gpu_that_torch_does_not_see(monkeypatch, tmp_path, built, words):
    driver(monkeypatch, tmp_path, "echo 'NVIDIA H200, 143771 MiB, 570.1'")
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (text,) = told(machine.gpus)
    assert text.startswith("BAD   gpu       NVIDIA H200, 143771 MiB, 570.1; torch ")
    assert words in text


def test_a_driver_that_does_not_answer(monkeypatch, tmp_path):
    driver(monkeypatch, tmp_path, "echo 'could not communicate with the NVIDIA driver'; exit 9")
    assert told(machine.gpus) == [
        "BAD   gpu       nvidia-smi failed (could not communicate with the NVIDIA driver); repair or reinstall the NVIDIA driver; without it "
        "this machine trains on its CPU"
    ]


def test_gpus_are_told_as_torch_numbers_them(monkeypatch, tmp_path):
    """The program lists all GPUs, in the order of their slots; CUDA_VISIBLE_DEVICES and torch have others."""
    driver(monkeypatch, tmp_path, "echo 'Tesla T4, 15360 MiB, 550.1'; echo 'NVIDIA H200, 143771 MiB, 550.1'")
    about = type("About", (), {"name": "NVIDIA H200", "total_memory": 140 * 2**30, "major": 9, "minor": 0})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: about)
    assert told(machine.gpus) == ["ok    gpu       NVIDIA H200, 140 GiB, compute capability 9.0, driver 550.1, bf16"]


def test_versions_of_what_is_optional_are_only_noted(monkeypatch):
    monkeypatch.setattr(packages, "installed", lambda name: {"pytest": "7.0", "pyarrow": "1.0"}.get(name, "9999"))
    assert {text for text in told(packages.required) if not text.startswith("ok")} == {
        f'note  packages  pyarrow is 1.0, and >=17 is needed for dinomx[{extra}]; pip install "pyarrow>=17"'
        for extra in ("all", "parquet")
    }


def test_what_is_slow_or_small(monkeypatch, tmp_path):
    rates = iter([100.0, 25.0, 100.0, 400.0])
    monkeypatch.setattr(machine, "products", lambda matrix: next(rates))
    assert told(machine.speed) == [
        'note  bf16      CPU: 100 GFLOP/s in float32, 25 in bf16 (x 0.2); on this CPU take run.precision = "float32"'
    ]
    assert told(machine.speed) == ["ok    bf16      CPU: 100 GFLOP/s in float32, 400 in bf16 (x 4.0)"]
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    monkeypatch.setattr(machine, "QUOTA", tmp_path / "cpu.max")
    assert "of which this process gets the time of 0.5; set run.threads = 1" in told(machine.cores)[0]
    monkeypatch.setattr(
        machine.shutil, "disk_usage", lambda path: type("Usage", (), {"total": 64 * 2**20, "free": 2**30})
    )
    monkeypatch.setattr(machine, "SHARED", tmp_path)
    assert told(machine.memory)[1].endswith(
        "has 64 MiB; loader.workers fill it; start the container with --shm-size 8g, or set loader.workers = 0"
    )
    assert told(machine.disk)[0].endswith("checkpoints need room: name another folder by run.out")


def test_a_hub_that_cannot_be_reached_and_a_check_that_fails(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert told(machine.hub)[0].startswith("note  hub       127.0.0.1 cannot be reached (")

    def ill():
        raise ZeroDivisionError("no disk")
        yield

    monkeypatch.setattr(machine, "disk", ill)
    found = {finding.topic: finding for finding in examine()}
    assert found["disk"].level == "bad"
    assert found["disk"].text.startswith("could not be examined: ZeroDivisionError: no disk")
    assert "files" in found or "hub" in found
    assert isinstance(found["python"], findings.Finding)


def test_it_ends_with_1_where_something_will_fail(install):
    install("bad", "1 / 0")
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1
    assert "BAD   plugins   dinomx-bad: cannot import dinomx_bad: ZeroDivisionError" in done.stdout


def test_the_container_file_copies_what_is_there():
    lines = (ROOT / "Containerfile").read_text("utf-8").splitlines()
    copied = {word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1] if word[0] not in "-/"}
    assert copied == {".", "constraints.txt"}
    assert all((ROOT / word).exists() for word in copied)
    steps = [line.removeprefix("RUN ") for line in lines if line.startswith("RUN ")]
    subprocess.run(["bash", "-n", "-c", "\n".join(steps)], check=True)
    words = f"printf '%s\\n' {steps[0].partition('/wheels ')[2]}"
    packages = subprocess.run(
        ["bash", "-c", words], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    assert len(packages) > 10
    assert all((ROOT / package / "pyproject.toml").is_file() for package in packages)
