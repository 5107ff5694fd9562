"""Trains exactly as the reference code did."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.parity import replay


def test_the_recorded_dino_trajectory_passes_whole(capsys):
    assert replay.main(str(replay.GOLDENS / "dinov1_trajectory.safetensors")) == 0
    assert "97 of 97 quantities within their limits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("tensor", "change"),
    [("losses", 1.001), ("init/head.mlp.0.weight", 1.01), ("final_center", 1.001), ("crops_24", 1.1)],
)
def test_a_recording_that_differs_fails(tmp_path, capsys, tensor, change):
    tensors = load_file(replay.GOLDENS / "dinov1_trajectory.safetensors")
    tensors[tensor] = tensors[tensor] * change
    save_file({name: t.contiguous() for name, t in tensors.items()}, tmp_path / "x.safetensors")
    (tmp_path / "x.json").write_text((replay.GOLDENS / "dinov1_trajectory.json").read_text())
    assert replay.main(str(tmp_path / "x.safetensors")) == 1
    assert "FAIL" in capsys.readouterr().out


def test_distance_sees_shapes_and_nan():
    assert replay.distance(torch.ones(2), torch.ones(3)) == float("inf")
    assert replay.distance(torch.tensor([float("nan")]), torch.ones(1)) == float("inf")
    assert replay.distance(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])) == 0.5
