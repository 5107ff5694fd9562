"""Freezing: what does not train has no gradient, no state, and runs once for student and teacher."""

import copy

import pytest
import torch

from dinomx_core import api
from dinomx_core.builtin.families import FAMILIES, Hf, hf_shape
from dinomx_core.builtin.hf import build_hf
from dinomx_core.declare.facts import Parameters
from dinomx_core.errors import ConfigError
from dinomx_core.training.build import build
from dinomx_freeze import plugin
from dinomx_freeze.strategy import FreezeStrategy
from tests.fixtures import TIMINGS, rows, steps
from tests.test_resume import assert_a_cut_changes_nothing

ONE = {"strategies": ["freeze"], "strategy": {"freeze": {"blocks": 1}}}


@pytest.mark.parametrize(
    "options", [{"blocks": 1}, {"parts": ["embeddings"]}, {"parts": ["norm", "last"]}, {"patterns": ["*q_proj*"]}]
)
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "beit"])
def test_the_plan_knows_what_trains(family, options):
    chosen = Hf(family=family, width=32, depth=2, heads=4, patch_size=8, mask_token=True)
    shape = hf_shape(chosen, 3, 32)
    backbone = build_hf(chosen, shape, 32)
    never = {
        name for name, p in backbone.named_parameters() if not p.requires_grad
    }  # CLIP's last norm, which nothing runs through
    strategy = FreezeStrategy(plugin.Freeze(**options))
    strategy.adapt(backbone)
    planned = plugin.adapt(strategy.options, Parameters(shape.layout, shape.depth, shape.tensors))
    assert planned.training - never == {name for name, p in backbone.named_parameters() if p.requires_grad}
    assert planned.frozen


def test_blocks_take_the_embeddings_with_them(toy):
    plan = api.plan(toy(**ONE))
    parts = build(plan)
    still = {name for name, p in parts.student.backbone.named_parameters() if not p.requires_grad}
    assert {parts.student.backbone.layer_of(name) for name in still} == {0, 1}
    assert plan.trains.prefix == parts.student.prefix == 2
    assert plan.trains.trainable == sum(p.numel() for p in parts.student.backbone.parameters() if p.requires_grad)


def test_what_is_frozen_never_changes_and_has_no_state(toy):
    parts = build(api.plan(toy(**ONE)))
    before = {name: tensor.clone() for name, tensor in parts.student.backbone.state_dict().items()}
    steps(parts, 3)
    for name, parameter in parts.student.backbone.named_parameters():
        changed = not torch.equal(parameter, before[name])
        assert changed == parameter.requires_grad == (parameter in parts.optimizer.adamw.state), name
        assert (dict(parts.teacher.network.backbone.named_parameters())[name] is parameter) != parameter.requires_grad


def test_frozen_weights_in_bf16_change_no_number_under_bf16(toy):
    def trained(**run):
        parts = build(api.plan(toy(run={"precision": "bf16", **run}, **ONE)))
        return [row["loss"] for row in steps(parts, 3)], parts.student.backbone

    wide, _ = trained()
    narrow, backbone = trained(frozen_weights="bf16")
    assert narrow == wide
    assert len(set(narrow)) == 3
    kinds = {name: p.dtype for name, p in backbone.named_parameters()}
    assert kinds["model.layers.0.mlp.fc1.weight"] == torch.bfloat16
    assert {kinds[name] for name, p in backbone.named_parameters() if p.requires_grad} == {torch.float32}


def calls_of(parts, blocks):
    """How often each block of student and teacher runs in one step, and whether with gradients."""
    seen = []
    for network, name in ((parts.student, "student"), (parts.teacher.network, "teacher")):
        for number in blocks:
            block = network.backbone.blocks[number]
            block.register_forward_hook(
                lambda _, given, result, name=name, number=number: seen.append((name, number, result.requires_grad))
            )
    steps(parts, 1)
    return sorted(seen)


def test_a_frozen_prefix_runs_without_gradients_and_once_for_both(toy):
    seen = calls_of(build(api.plan(toy(**ONE))), (0, 1))
    # Block 0: the globals once, by the teacher's; the locals by the student's. Block 1: both by the student, the globals by the teacher.
    assert seen == [
        ("student", 0, False), ("student", 1, True), ("student", 1, True), ("teacher", 0, False), ("teacher", 1, False)
    ]  # fmt: skip
    without = calls_of(build(api.plan(toy())), (0,))
    assert without == [("student", 0, True), ("student", 0, True), ("teacher", 0, False)]


def test_running_a_prefix_once_changes_no_number(toy):
    found = []
    for apart in (False, True):
        parts = build(api.plan(toy(**ONE, run={"name": f"run{apart}"})))
        if apart:
            parts.objective.begun = lambda views: {}
        found.append([{k: v for k, v in row.items() if k not in TIMINGS} for row in steps(parts, 3)])
    for one, other in zip(*found):
        assert one == pytest.approx(other, rel=1e-6)


def test_what_is_held_back_trains_from_its_step_on(toy):
    config = toy(
        strategies=["freeze"], strategy={"freeze": {"blocks": 2, "parts": ["last"], "until": 2}}, run={"steps": 4}
    )
    plan = api.plan(config)
    assert plan.trains.later == plan.trains.total == plan.trains.trainable
    parts = build(plan)
    start = copy.deepcopy(parts.student.backbone.state_dict())
    steps(parts, 2)
    assert all(torch.equal(tensor, start[name]) for name, tensor in parts.student.backbone.state_dict().items())
    assert not [p for p in parts.student.backbone.parameters() if p in parts.optimizer.adamw.state]
    assert parts.student.prefix == 3
    parts = build(plan)
    steps(parts, 3)
    assert not any(torch.equal(tensor, start[name]) for name, tensor in parts.student.backbone.state_dict().items())
    assert parts.student.prefix == 0


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"blocks": 1}, {"blocks": 2, "until": 3}, {"blocks": 2, "until": 6}])
def test_resume_is_bit_identical(toy, options):
    config = toy(strategies=["freeze"], strategy={"freeze": options}, run={"steps": 8})
    assert_a_cut_changes_nothing(config)


def test_adapters_of_frozen_blocks_stand_still(toy):
    config = toy(strategies=["lora", "freeze"], strategy={"lora": {"rank": 2}, "freeze": {"blocks": 1}})
    parts = build(api.plan(config))
    trains = [name for name, p in parts.student.backbone.named_parameters() if p.requires_grad]
    assert len(trains) == 4
    assert all("layers.1." in name for name in trains)
    assert parts.plan.trains.prefix == parts.student.prefix == 2


@pytest.mark.parametrize("recipe", ["dinov1-small", "dinov2-small", "dinov3-small"])
def test_it_goes_with_every_method(tmp_path, recipe):
    config = {
        "recipe": recipe, **ONE, "data": {"name": "digits"},
        "run": {"steps": 2, "batch_size": 8, "device": "cpu", "threads": 1, "out": str(tmp_path)},
        "backbone": {"width": 32, "depth": 2, "heads": 2}, "loader": {"workers": 0},
        "augmentation": {"mean": [0.3], "std": [0.35], "globals": {"size": 16}, "locals": {"size": 8}},
    }  # fmt: skip
    result = api.run(config)
    assert all(row["gradient_norm"] > 0 for row in rows(result.folder / "metrics.jsonl"))
    assert api.load(result.export)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "strategy.freeze: names nothing to freeze; give blocks, parts or patterns"),
        ({"blocks": 3}, "strategy.freeze.blocks: 3, but there are 2"),
        ({"blocks": 2, "parts": ["last"]}, "strategy.freeze: leaves nothing of the backbone that trains; freeze less"),
        ({"parts": ["scale"]}, 'strategy.freeze.parts: no parameter is of the part "scale"; there are query, key, value, output, '
         "mlp, norm, embeddings, last"),
        ({"blocks": 1, "until": 4}, "strategy.freeze.until: is 4, but the run has 4 steps; 0 freezes for good"),
        ({"patterns": ["*.nothing"]}, 'strategy.freeze.patterns: "*.nothing" matches no parameter; the first are '
         "model.embeddings.cls_token, model.embeddings.position_embeddings"),
    ],
)  # fmt: skip
def test_what_means_nothing_is_refused(toy, options, message):
    with pytest.raises(ConfigError) as caught:
        api.plan(toy(strategies=["freeze"], strategy={"freeze": options}))
    assert message in str(caught.value).replace("config: ", "")


def test_another_order_is_another_run(toy):
    two = {"low": {"name": "freeze", "blocks": 1}, "norms": {"name": "freeze", "parts": ["norm"]}}
    api.run(toy(strategies=["low", "norms"], strategy=two))
    with pytest.raises(
        ConfigError, match=r"strategies: are applied as \['norms', 'low'\] and were as \['low', 'norms'\]"
    ):
        api.run(toy(strategies=["norms", "low"], strategy=two), resume=True)


def test_holding_back_twice_is_refused(toy):
    two = {"stem": {"name": "freeze", "blocks": 1, "until": 2}, "both": {"name": "freeze", "blocks": 2, "until": 3}}
    for order in (["stem", "both"], ["both", "stem"]):
        with pytest.raises(
            ConfigError, match=rf"strategy.{order[1]}.until: holds back .*, which an earlier strategy holds"
        ):
            api.plan(toy(strategies=order, strategy=two))


def test_freezing_what_is_frozen_already_is_refused(toy):
    tables = {"lora": {"rank": 2}, "freeze": {"parts": ["embeddings"]}}
    with pytest.raises(ConfigError, match=r"strategy\.freeze: changes nothing of what trains; leave it out"):
        api.plan(toy(strategies=["lora", "freeze"], strategy=tables))
