"""What fsdp declares and how it divides; what it computes is in the core's tests of many processes."""

import os

import pytest
import torch

from dinomx_core import ConfigError, Load, api
from dinomx_core.training.build import build
from dinomx_fsdp import plugin
from dinomx_fsdp.plugin import Fsdp, divide_fsdp
from tests import mixes

LOAD = Load(trainable=1000, shared=0, still=1000, unit=100, world_size=4, accumulation=1)


def test_a_part_in_n_is_held_and_a_block_passes_through():
    found = divide_fsdp(Fsdp(), LOAD)
    assert found.held == 1 / 4
    assert (
        found.passing == 2 * 4 * 100 + 2 * 4 * 100
    )  # weights of two blocks, and a block's gradients with their buffer
    # The student's weights twice and the teacher's once, the gradients once; of each, three quarters go by.
    assert found.sent == (2 * 1000 + 1000 + 1000) * 4 * 3 / 4


def test_weights_that_are_kept_are_sent_once_and_held_whole():
    found = divide_fsdp(Fsdp(reshard=False, weights="bf16"), LOAD)
    assert found.passing == 2 * 1000 + 2 * 4 * 100
    assert found.sent == ((1000 + 1000) * 2 + 1000 * 4) * 3 / 4


def test_an_older_torch_is_refused_when_a_run_wants_it(toy, monkeypatch):
    monkeypatch.setattr(plugin.metadata, "version", lambda name: "2.9.0+cu128")
    with pytest.raises(
        ConfigError,
        match=r'parallelism: needs torch 2.13 or newer, and this is 2.9.0\+cu128; upgrade torch, or take "ddp"',
    ):
        api.plan(toy(parallelism={"name": "fsdp"}))


@pytest.fixture
def alone(monkeypatch):
    """One process that is its own group."""
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    os.environ.pop("MASTER_ADDR", None)


@pytest.mark.parametrize("strategy", ["full", "lora", "freeze"])
def test_one_process_alone_computes_what_it_would_without(alone, strategy):
    from tests.together import train

    one = train(mixes.config("dinov2", mixes.STRATEGIES[strategy]), 3)
    same = train(mixes.config("dinov2", mixes.STRATEGIES[strategy], {"parallelism": {"name": "fsdp"}}), 3)
    assert [row["loss"] for row in same["rows"]] == pytest.approx([row["loss"] for row in one["rows"]], rel=1e-12)
    assert same["weights"].keys() == one["weights"].keys() and same["held"] == one["held"]


def test_the_frozen_base_is_one_for_student_and_teacher(alone):
    parts = build(api.plan(mixes.config("dinov1", mixes.STRATEGIES["lora"], {"parallelism": {"name": "fsdp"}})))
    ours, theirs = (dict(n.backbone.named_parameters()) for n in (parts.student, parts.teacher.network))
    assert parts.base and all(ours[name] is theirs[name] for name in parts.base)
    assert all(type(parameter).__name__ == "DTensor" for parameter in parts.base.values())
    assert not any(ours[name] is theirs[name] for name in ours if name not in parts.base)


def test_bf16_weights_are_computed_with_and_float32_ones_kept(alone):
    table = mixes.config("dinov1", {"parallelism": {"name": "fsdp", "weights": "bf16"}}, precision="bf16")
    parts = build(api.plan(table))
    seen = []
    block = parts.student.backbone.blocks[0]
    block.register_forward_pre_hook(lambda module, inputs: seen.append(next(module.parameters()).dtype))
    from tests.fixtures import steps

    assert all(torch.isfinite(torch.tensor(row["loss"])) for row in steps(parts, 2))
    assert set(seen) == {torch.bfloat16}
    assert all(parameter.dtype == torch.float32 for parameter in parts.student.parameters())


def test_the_example_plans():
    made = api.plan("plugins/fsdp/example.toml")
    assert made.batch.world_size == 2 and made.spec.parallelism.component.name == "fsdp"
