"""LoRA: adapters on one frozen base that student and teacher share."""

import copy

import peft
import pytest
import torch
import transformers
from peft.tuners.lora import Linear
from safetensors.torch import load_file

from dinomx_core import api
from dinomx_core.builtin.families import FAMILIES, Hf, hf_shape
from dinomx_core.builtin.hf import build_hf
from dinomx_core.declare.facts import Parameters
from dinomx_core.errors import ConfigError
from dinomx_core.training.build import build
from dinomx_core.training.checkpoint import digest
from dinomx_lora import plugin
from dinomx_lora.fused import FusedLinear
from dinomx_lora.strategy import LoraStrategy
from tests.fixtures import TIMINGS, rows, steps
from tests.test_resume import assert_a_cut_changes_nothing

BASE_FILE = "base/weights.safetensors"
LORA = {"strategies": ["lora"], "strategy": {"lora": {"rank": 2}}}


def adapted(family, **options):
    """A small random backbone of a family, the same with adapters, and the strategy that put them in."""
    chosen = Hf(family=family, width=32, depth=2, heads=4, patch_size=8, mask_token=True)
    torch.manual_seed(0)
    shape = hf_shape(chosen, 3, 32)
    plain = build_hf(chosen, shape, 32).eval()
    strategy = LoraStrategy(plugin.Lora(**options))
    backbone = copy.deepcopy(plain)
    strategy.adapt(backbone)
    return plain, backbone.eval(), strategy, shape


def disturb(backbone):
    """Give every adapter weights that change what the backbone computes."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if ".lora_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)


ALL = ["query", "key", "value", "output", "mlp"]


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_fresh_adapters_change_nothing_and_merged_ones_compute_the_same(family, dora):
    plain, backbone, strategy, _ = adapted(family, rank=2, roles=ALL, dora=dora)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        base, fresh = plain(pixels), backbone(pixels)
        if dora:
            assert (base.patches - fresh.patches).abs().max() < 1e-6 * base.patches.abs().max().clamp_min(1)
        else:
            assert torch.equal(base.patches, fresh.patches)
            assert torch.equal(base.summary, fresh.summary)
        disturb(backbone)
        unmerged = backbone(pixels)
        assert (unmerged.patches - base.patches).abs().max() > 1e-3
        strategy.merge(backbone)
        assert set(backbone.state_dict()) == set(plain.state_dict())
        assert (backbone(pixels).patches - unmerged.patches).abs().max() < 1e-5 * base.patches.abs().max()


@pytest.mark.parametrize("family", ["vit", "dinov2"])
def test_the_fused_layer_computes_what_pefts_own_does(family):
    _, backbone, _, _ = adapted(family, rank=2, roles=ALL, alpha=6)
    disturb(backbone)
    other = copy.deepcopy(backbone)
    swapped = [layer for layer in other.modules() if isinstance(layer, FusedLinear)]
    assert len(swapped) == 12
    for layer in swapped:
        layer.__class__ = Linear
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for one in (backbone, other):
        one.double()(pixels).patches.square().sum().backward()
    theirs = dict(other.named_parameters())
    trained = {name: p for name, p in backbone.named_parameters() if p.requires_grad}
    assert len(trained) == 24
    for name, parameter in trained.items():
        assert torch.allclose(parameter.grad, theirs[name].grad, rtol=1e-9, atol=1e-12), name


def test_under_bf16_the_fused_layer_stays_as_near_to_float32_as_pefts_own():
    _, backbone, _, _ = adapted("dinov2", rank=2, roles=ALL, alpha=6)
    disturb(backbone)
    pefts, exact = copy.deepcopy(backbone), copy.deepcopy(backbone)
    for layer in pefts.modules():
        if isinstance(layer, FusedLinear):
            layer.__class__ = Linear
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    for one, narrow in ((backbone, True), (pefts, True), (exact, False)):
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            loss = one(pixels).patches.float().square().sum()
        loss.backward()

    def worst(one):
        pairs = (
            (p.grad, dict(exact.named_parameters())[name].grad) for name, p in one.named_parameters() if p.requires_grad
        )
        return max(float((ours - theirs).norm() / theirs.norm()) for ours, theirs in pairs)

    assert worst(backbone) < 0.1
    assert worst(backbone) < 1.5 * worst(pefts)


def test_a_base_in_bf16_computes_the_same_under_bf16(toy):
    def losses(**run):
        parts = build(api.plan(toy(run={"precision": "bf16", **run}, **LORA)))
        return [row["loss"] for row in steps(parts, 3)], parts

    wide, _ = losses()
    narrow, parts = losses(frozen_weights="bf16")
    assert narrow == wide
    kinds = {name: p.dtype for name, p in parts.student.backbone.named_parameters()}
    assert {kinds[n] for n in kinds if n.endswith("fc1.weight")} == {torch.bfloat16}
    assert {kinds[n] for n in kinds if ".lora_" in n} == {torch.float32}
    assert parts.teacher.network.backbone.get_parameter("model.layers.0.mlp.fc1.weight").dtype == torch.bfloat16
    with pytest.raises(ConfigError, match='run.frozen_weights: "bf16" needs run.precision = "bf16", not "float32"'):
        api.plan(toy(run={"frozen_weights": "bf16"}, **LORA))


@pytest.mark.parametrize(
    "options", [{}, {"dora": True, "roles": ALL}, {"full_blocks": [-1]}, {"patterns": ["*.1.mlp.*"]}]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_plan_knows_what_trains(family, options):
    _, backbone, strategy, shape = adapted(family, rank=2, **options)
    planned = plugin.adapt(strategy.options, Parameters(shape.layout, shape.depth, shape.tensors))
    assert dict(planned.shapes) == {name: tuple(p.shape) for name, p in backbone.named_parameters()}
    assert planned.training == {name for name, p in backbone.named_parameters() if p.requires_grad}


def test_the_estimate_knows_what_is_saved(toy):
    def cost(strategies=("lora",), **run):
        return api.plan(toy(strategies=list(strategies), run=run)).cost

    whole, lora = cost(()), cost()
    kept = [c.activation_bytes for c in (whole, lora, cost(recompute="mlp"), cost(recompute="blocks"))]
    assert kept == sorted(kept, reverse=True) and len(set(kept)) == 4
    half = cost(recompute="mlp", recompute_every=2).activation_bytes
    assert half == pytest.approx((kept[1] + kept[2]) / 2, rel=0.01)
    assert lora.optimizer_bytes < 0.7 * whole.optimizer_bytes
    narrow = cost(precision="bf16", frozen_weights="bf16")
    base = api.plan(toy(**LORA)).trains.shared
    assert cost(precision="bf16").parameter_bytes - narrow.parameter_bytes == 2 * base


def test_student_and_teacher_share_one_base_and_follow_adapter_by_adapter(toy):
    parts = build(api.plan(toy(**LORA)))
    before, start = digest(parts.base, parts.parallelism), copy.deepcopy(parts.teacher.network.state_dict())
    ours, theirs = (dict(n.backbone.named_parameters()) for n in (parts.student, parts.teacher.network))
    for name, parameter in ours.items():
        assert (theirs[name] is parameter) == (".lora_" not in name)
        assert parameter.requires_grad == (".lora_" in name)
    heads = len(list(parts.teacher.network.heads.parameters()))
    assert len(parts.teacher.pairs) == heads + 2 * 2 * 2  # blocks x roles x matrices
    inside = {id(p) for group in parts.optimizer.adamw.param_groups for p in group["params"]}
    backbone = {id(p) for p in ours.values()}
    assert inside & backbone == {id(p) for name, p in ours.items() if ".lora_" in name}
    steps(parts, 2)
    assert all(p.requires_grad for name, p in ours.items() if ".lora_" in name)
    assert (
        digest(parts.base, parts.parallelism)
        == before
        == digest({name: theirs[name] for name in parts.base}, parts.parallelism)
    )
    moved = [
        name for name, tensor in parts.teacher.network.state_dict().items() if not torch.equal(tensor, start[name])
    ]
    assert any(".lora_B" in name for name in moved)
    assert all(".lora_" in name or name.startswith("heads.") for name in moved)


def test_every_adapter_gets_a_gradient_after_the_teacher_has_run(toy):
    parts = build(api.plan(toy(**LORA)))
    steps(parts, 1)  # at the first step what enters A is multiplied by a B of zeros
    seen = {}
    for name, parameter in parts.student.backbone.named_parameters():
        if parameter.requires_grad:
            parameter.register_hook(lambda gradient, name=name: seen.__setitem__(name, float(gradient.abs().sum())))
    steps(parts, 1)
    assert len(seen) == 8
    assert all(seen.values())


@pytest.mark.parametrize("options", [{"rank": 2}, {"rank": 2, "full_blocks": [-1]}, {"rank": 2, "dora": True}])
def test_an_export_is_the_merged_model_and_the_adapter_opens_with_peft(toy, model_folder, tmp_path, options):
    base = model_folder("dinov2")
    config = toy(strategies=["lora"], strategy={"lora": options}, data={"name": "digits"})
    config["backbone"] = {"name": "hf", "weights": str(base), "other_channels": "average"}
    for table, size in (("globals", 32), ("locals", 16)):
        config["augmentation"][table]["size"] = size
    config["optimizer"]["lr"] = 0.05
    folder = api.run(config).folder
    saved = load_file(folder / "checkpoints" / "4" / "teacher.safetensors")
    whole = {"model.encoder.layer.2."} if "full_blocks" in options else set()
    inside = [name.removeprefix("backbone.") for name in saved if name.startswith("backbone.")]
    assert all(".lora_" in name or name.startswith(tuple(whole) or "-") for name in inside)
    assert (folder / "checkpoints" / BASE_FILE).is_file()
    checkpoint, export = api.load(folder / "checkpoints" / "4"), api.load(folder / "export")
    pixels = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        assert (checkpoint.backbone(pixels).patches - export.backbone(pixels).patches).abs().max() < 1e-5
    merged = transformers.AutoModel.from_pretrained(folder / "export").eval()
    start = transformers.AutoModel.from_pretrained(base, num_channels=1, ignore_mismatched_sizes=True)
    start.embeddings.load_state_dict(merged.embeddings.state_dict())  # of one channel, as the run started
    model = peft.PeftModel.from_pretrained(start, folder / "export" / "adapter").eval()
    plain = transformers.AutoModel.from_pretrained(base, num_channels=1, ignore_mismatched_sizes=True).eval()
    plain.embeddings.load_state_dict(merged.embeddings.state_dict())
    with torch.no_grad():
        wanted = merged(pixels).last_hidden_state
        assert (model(pixels).last_hidden_state - wanted).abs().max() < 1e-5 * wanted.abs().max()
        assert (plain(pixels).last_hidden_state - wanted).abs().max() > 1e-3
    out = api.export(folder, tmp_path / "student", network="student")["folder"]
    assert (out / "adapter" / "adapter_config.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "run"),
    [
        ({"rank": 2, "dropout": 0.1}, {}),
        ({"rank": 2, "dora": True, "full_blocks": [0]}, {}),
        ({"rank": 2}, {"precision": "bf16", "frozen_weights": "bf16"}),
    ],
)
def test_resume_is_bit_identical(toy, options, run):
    config = toy(strategies=["lora"], strategy={"lora": options}, run={"steps": 8, **run})
    assert_a_cut_changes_nothing(config)


def test_a_run_whose_base_has_changed_does_not_go_on(toy):
    config = toy(**LORA, run={"steps": 4})
    folder = api.run(config).folder
    file = folder / "checkpoints" / BASE_FILE
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ConfigError, match=r"no checkpoint is whole.*base/weights.safetensors is not what was written"):
        api.run(config, resume=True)


def test_a_run_that_starts_from_one_with_adapters_starts_where_its_teacher_ended(toy):
    first = api.run(toy(**LORA, run={"name": "first"}, optimizer={"lr": 0.05})).folder
    theirs = api.load(first / "checkpoints" / "4").backbone
    pixels = torch.randn(2, 1, 16, 16)
    for name, changes in (("again", LORA), ("whole", {})):
        parts = build(api.plan(toy(**changes, run={"name": name, "start": str(first)})))
        parts.student.eval()
        with torch.no_grad():
            for network in (parts.teacher.network, *([parts.student] if changes else [])):
                assert (network.backbone(pixels).patches - theirs(pixels).patches).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [("dinov1-small", {}), ("dinov2-small", {}), ("dinov3-small", {}), ("dinov2-small", {"dora": True, "roles": ALL})],
)
def test_it_goes_with_every_method(tmp_path, recipe, changes):
    config = {
        "recipe": recipe, "strategies": ["lora"], "strategy": {"lora": {"rank": 2, **changes}}, "data": {"name": "digits"},
        "run": {"steps": 2, "batch_size": 8, "device": "cpu", "threads": 1, "out": str(tmp_path)},
        "backbone": {"width": 32, "depth": 2, "heads": 2}, "loader": {"workers": 0},
        "augmentation": {"mean": [0.3], "std": [0.35], "globals": {"size": 16}, "locals": {"size": 8}},
    }  # fmt: skip
    found = rows(api.run(config).folder / "metrics.jsonl")
    assert all(row["gradient_norm"] > 0 for row in found)
    assert len([name for name in found[0] if name not in TIMINGS and name.startswith("loss/")]) >= 1


@pytest.mark.parametrize(
    ("strategies", "options", "message"),
    [
        (["lora"], {"rank": 0}, "strategy.lora.rank: must be > 0, got 0"),
        (["lora"], {"rank": 17}, "strategy.lora.rank: 17 is more than the 16 that model.layers.0.attention.q_proj (16 -> 16) can have"),
        (["lora"], {"roles": []}, "strategy.lora.roles: no layer gets an adapter; name roles or patterns, or fewer full_blocks"),
        (["lora"], {"patterns": ["*nothing"]}, 'strategy.lora.patterns: "*nothing" matches no linear layer of a block; there are '
         "model.layers.0.attention.k_proj, model.layers.0.attention.o_proj, model.layers.0.attention.q_proj, "
         "model.layers.0.attention.v_proj, ..."),
        (["lora"], {"full_blocks": [1], "patterns": ["*.1.mlp.fc1"]}, 'strategy.lora.patterns: "*.1.mlp.fc1" matches layers of '
         "full_blocks only, which get no adapters"),
        (["lora"], {"full_blocks": [2]}, "strategy.lora.full_blocks: 2, but there are 2 blocks"),
        (["lora", "more"], {}, "strategy.more: comes after another strategy that puts adapters in; one is enough, with all roles and "
         "patterns"),
        (["still", "lora"], {}, "strategy.lora: freezes the whole backbone, so that what an earlier strategy freezes means nothing; put "
         "it first in strategies"),
    ],
)  # fmt: skip
def test_what_means_nothing_is_refused(toy, strategies, options, message):
    tables = {"lora": options, "more": {"name": "lora"}, "still": {"name": "freeze", "blocks": 1}}
    config = toy(strategies=strategies, strategy={label: tables[label] for label in strategies})
    with pytest.raises(ConfigError) as caught:
        api.plan(config)
    assert message in str(caught.value).replace("config: ", "")
