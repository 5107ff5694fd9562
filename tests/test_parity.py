"""Trains exactly as the reference code did."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.fixtures import update
from tests.parity import replay

TRAJECTORIES = {
    "dinov1_trajectory": 97,
    "dinov2_centering_shared": 112,
    "dinov2_sinkhorn_separate_registers": 128,
    "dinov3_pretrain": 127,
    "dinov3_gram": 127,
    "losses": 16,
}


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_a_recorded_trajectory_passes_whole(capsys, name):
    assert replay.main(str(replay.GOLDENS / f"{name}.safetensors")) == 0
    count = TRAJECTORIES[name]
    assert f"{count} of {count} quantities within their limits" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("dinov2_centering_shared", {"ibot": {"loss_weight": 0.5}}),
        ("dinov2_centering_shared", {"optim": {"layerwise_decay": 0.8}}),
        ("dinov2_sinkhorn_separate_registers", {"dino": {"koleo_loss_weight": 0.2}}),
        ("dinov2_sinkhorn_separate_registers", {"train": {"centering": "centering"}}),
        ("dinov3_gram", {"gram": {"img_level": False}}),
        ("dinov3_gram", {"gram": {"img_level": False, "tokens_used": "unmasked"}}),
        ("dinov3_gram", {"gram": {"remove_neg": True}}),
        ("dinov3_gram", {"gram": {"ema_teacher": True}}),
        ("dinov3_gram", {"dino": {"reweight_dino_local_loss": False}}),
        ("dinov3_pretrain", {"schedules": {"lr": {"freeze_last_layer_epochs": 0}}}),
    ],
)
def test_other_settings_give_other_numbers(tmp_path, name, change):
    shutil.copy(replay.GOLDENS / f"{name}.safetensors", tmp_path / "x.safetensors")
    settings = json.loads((replay.GOLDENS / f"{name}.json").read_text())
    for table, keys in change.items():
        update(settings[table], keys)
    (tmp_path / "x.json").write_text(json.dumps(settings))
    results = replay.replay(str(tmp_path / "x.safetensors"))
    assert all(found < float("inf") for found, _ in results.values())
    assert sum(found > limit for found, limit in results.values()) > 10


@pytest.mark.slow
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
