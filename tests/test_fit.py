"""Plans for other machines, and what fits into memory."""

import json
import subprocess
import sys

import attrs
import pytest

from dinomx_core import ConfigError, TrainingError, api
from dinomx_core.planning.devices import DEVICES, elsewhere, forecast, parse_bytes
from dinomx_core.planning.document import to_toml
from dinomx_core.planning.fit import USED, advice, cost_with, largest, same_batch
from dinomx_core.planning.plan import Env

HERE = Env("cpu", 2, "3.11", {"dinomx": "0"})
LARGE = {
    "backbone": {"width": 384, "depth": 12, "heads": 6, "patch_size": 16},
    "head": {"dino": {"prototypes": 65536, "hidden": 2048, "bottleneck": 256}},
    "augmentation": {"globals": {"count": 2, "size": 224}, "locals": {"count": 8, "size": 96}},
    "run": {"batch_size": 64},
}


@pytest.fixture
def large(toy):
    def make(world=0, device=None, **changes):
        config = toy(**LARGE)
        for table, values in changes.items():
            config.setdefault(table, {}).update(values)
        return api.plan(config, env=elsewhere(HERE, world, DEVICES.get(device)))

    return make


@pytest.mark.parametrize(
    ("text", "expected"), [("24GiB", 24 * 2**30), ("80GB", 80e9), ("512 MiB", 2**29), ("1.5TB", 1.5e12)]
)
def test_amounts_of_memory(text, expected):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["24", "GiB", "-1GB", "0GB", "24 gigs"])
def test_what_is_no_amount_of_memory(text):
    with pytest.raises(ValueError, match='expected an amount of memory such as "24GiB" or "80GB"'):
        parse_bytes(text)


def test_the_same_batch_fits_by_recomputing_first_and_then_by_accumulation(large):
    plan = large()
    whole = plan.cost.memory_bytes
    assert same_batch(plan, whole / USED + 1).settings(plan) == []
    assert same_batch(plan, 0.8 * whole).settings(plan) == ["run.recompute=mlp"]
    assert same_batch(plan, 0.5 * whole).settings(plan) == ["run.recompute=blocks"]
    tight = same_batch(plan, 0.2 * whole)
    assert tight.accumulation > 1 and tight.batch_size == 64 and tight.bytes <= USED * 0.2 * whole
    assert same_batch(plan, 0.01 * whole) is None


def test_the_largest_batch_fits_and_one_more_does_not(large):
    plan, memory = large(), 8 * 2**30
    found = list(largest(plan, memory))
    assert [proposal.recompute for proposal in found] == ["none", "mlp", "blocks"]
    assert found[0].batch_size < found[1].batch_size < found[2].batch_size
    for proposal in found:
        assert proposal.bytes <= USED * memory < cost_with(plan, proposal.batch_size + 1, 1, proposal.recompute).bytes


def test_what_it_proposes_is_what_the_plan_then_says(large):
    plan = large()
    proposal = same_batch(plan, 0.2 * plan.cost.memory_bytes)
    run = {"accumulation": proposal.accumulation, "recompute": proposal.recompute}
    assert large(run={**LARGE["run"], **run}).cost.memory_bytes == proposal.bytes


def test_sharded_state_and_what_is_sent_follow_the_number_of_processes(large):
    one, many = (large(world, "h200", parallelism={"name": "fsdp"}).cost for world in (8, 64))
    for name in ("parameter_bytes", "gradient_bytes", "optimizer_bytes"):
        assert getattr(one, name) == pytest.approx(8 * getattr(many, name), rel=1e-6)
    ddp = large(64, "h200", parallelism={"name": "ddp"})
    assert ddp.cost.parameter_bytes == large().cost.parameter_bytes
    assert ddp.cost.sent_bytes == pytest.approx(2 * 63 / 64 * ddp.cost.gradient_bytes)
    assert many.sent_bytes > ddp.cost.sent_bytes


def test_a_forecast_is_bounded_by_computing_and_sending(large):
    plan = large(64, "h200", parallelism={"name": "ddp"}, run={"batch_size": 512, "precision": "bf16"})
    found = forecast(plan, DEVICES["h200"])
    assert found.computing == pytest.approx(plan.cost.flops / 64 / (0.4 * 989e12))
    assert found.sending == pytest.approx(plan.cost.sent_bytes / 50e9) and 0 < found.share < 1
    assert forecast(attrs.evolve(plan), DEVICES["b200"]).computing < found.computing


def test_one_process_is_refused_many(large):
    with pytest.raises(ConfigError, match='--world-size asks for 64 processes, but "single" is one'):
        large(64)


def test_advice_names_what_to_set(large):
    plan = large()
    assert advice(plan, plan.cost.memory_bytes) == (
        f"try --set run.recompute=mlp (about {cost_with(plan, 64, 1, 'mlp').bytes / 2**30:.1f} GiB)"
    )
    assert "lower run.batch_size, take smaller crops" in advice(plan, 1e6)


def test_out_of_memory_repeats_the_proposal(toy):
    from tests import broken_strategy

    table = toy(strategies=["broken"], strategy={"broken": {"how": "memory", "rank": 0, "step": 1}})
    with pytest.raises(TrainingError, match=r"step 1: out of memory \(CUDA out of memory.*GiB\); (try --set|lower)"):
        api.run(table, plugins=[broken_strategy])


def dinomx(*words):
    code = "from dinomx_core.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True)


def test_the_command_says_all_of_it(toy, tmp_path):
    file = tmp_path / "c.toml"
    file.write_text(to_toml({**toy(**LARGE), "parallelism": {"name": "fsdp"}}))
    told = dinomx("plan", file, "--world-size", 16, "--device", "h200", "--set", "run.device=auto")
    assert told.returncode == 0, told.stderr
    for words in (
        "64 images a step = 16 process(es) x 1 accumulated x 4",
        "on cuda",
        " sent ",
        " divided ",
        "s computing (at 40%",
    ):
        assert words in told.stdout
    assert json.loads(dinomx("plan", file, "--world-size", 16, "--json").stdout)["cost"]["sent_bytes"] > 0
    told = dinomx("plan", file, "--fit", "2GiB").stdout.splitlines()
    assert told[0] == "Fit into 2 GiB a process, a tenth of it left free" and told[1].startswith(
        "  the same batch of 64: --set run."
    )
    assert dinomx("plan", file, "--fit", "much").returncode == 2
    assert "error: --device: expected one of a100-40" in dinomx("plan", file, "--device", "tpu").stderr
