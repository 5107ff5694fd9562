"""DINOv3's ConvNeXt as a backbone."""

import math

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from dinomx_core import ConfigError, api
from dinomx_core.training.build import build
from dinomx_core.training.flow import Views
from dinomx_dinov3 import convnext
from dinomx_dinov3.convnext_backbone import build_convnext
from tests.fixtures import rows, steps

SMALL = convnext.ConvNext(widths=[8, 16], depths=[1, 2], layer_scale=1.0, init_std=0.1)
NO_VIT = dict.fromkeys(["width", "depth", "heads", "patch_size", "drop_path"])
BACKBONE = {
    **NO_VIT,
    "name": "dinov3-convnext",
    "widths": [8, 16],
    "depths": [1, 1],
    "layer_scale": 1.0,
    "init_std": 0.1,
}


def made(options=SMALL, channels=3, size=32):
    torch.manual_seed(0)
    return build_convnext(options, convnext.convnext_shape(options, channels, size), size)


@pytest.mark.parametrize("channels", [1, 3])
def test_names_and_sizes_are_known_without_torch(channels):
    shape = convnext.convnext_shape(SMALL, channels, 32)
    backbone = made(channels=channels)
    assert dict(shape.tensors) == {name: tuple(p.shape) for name, p in backbone.named_parameters()}
    assert (shape.width, shape.depth, shape.patch_size, shape.tokens(32)) == (16, 2, 8, 17)
    assert [shape.layout.layer_of(n, 2) for n in ("model.model.stages.0.x", "model.model.stages.1.x", "model.layer_norm.x")] == [
        1, 2, 3,
    ]  # fmt: skip


def test_its_tokens_are_the_models_own(tmp_path):
    backbone = made().eval()
    backbone.save(tmp_path / "m")
    model = transformers.AutoModel.from_pretrained(tmp_path / "m").eval()
    pixels = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        tokens, wanted = backbone(pixels), model(pixels).last_hidden_state
    assert torch.allclose(tokens.cls, wanted[:, 0], atol=1e-6)
    assert torch.allclose(tokens.patches, wanted[:, 1:], atol=1e-6)
    assert tokens.grid == (1, 4, 6)


def test_a_forward_pass_costs_what_the_plan_says():
    from torch.utils.flop_counter import FlopCounterMode

    options = convnext.ConvNext()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        made(options, size=64)(torch.randn(1, 3, 64, 64))
    assert convnext.convnext_shape(options, 3, 64).forward_flops(64) == pytest.approx(
        counter.get_total_flops(), rel=1e-3
    )


def test_weights_are_taken_whole_or_not_at_all(tmp_path):
    source = made()
    source.save(tmp_path / "m")
    taken = made(convnext.ConvNext(weights=str(tmp_path / "m")))
    assert taken.warm_start().report.startswith(f"{len(source.model.state_dict())}/")
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), taken.parameters()))
    grey = made(convnext.ConvNext(weights=str(tmp_path / "m"), other_channels="average"), channels=1)
    grey.warm_start()
    pixels = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.allclose(grey.eval()(pixels).cls, source.eval()(pixels.repeat(1, 3, 1, 1)).cls, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depths": [1, 1, 1]}, "backbone.depths: has 3 stages, widths has 2"),
        ({"weights": "m", "widths": [96]}, "backbone.widths: is for a model from scratch"),
        ({"weights": "m"}, "made for 3 channels, the data have 1"),
    ],
)
def test_bad_options_are_refused(toy, tmp_path, monkeypatch, changes, message):
    made().save(tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    table = {**(NO_VIT if "weights" in changes else BACKBONE), "name": "dinov3-convnext", **changes}
    with pytest.raises(ConfigError, match=message):
        api.plan(toy(backbone=table))


def test_masks_are_refused_with_the_remedy(toy):
    with pytest.raises(ConfigError, match=r"has no mask token, which loss.dino needs; set loss.dino.masked = false"):
        api.plan(toy(backbone=BACKBONE, loss={"dino": {"masked": True}}, masking={"name": "blocks"}))


def test_it_trains_with_dino_and_is_exported(toy):
    run = api.run(toy(backbone=BACKBONE))
    assert all(math.isfinite(row["loss"]) for row in rows(run.folder / "metrics.jsonl"))
    model = transformers.AutoModel.from_pretrained(run.folder / "export")
    assert type(model).__name__ == "DINOv3ConvNextModel"


def test_it_learns_from_a_transformer(toy):
    teacher = api.run(toy(run={"name": "teacher", "steps": 2})).folder
    config = toy(
        backbone=BACKBONE, losses=["distill-features"], loss={"distill-features": {"teacher": str(teacher)}},
        optimizer={"lr": 5e-3}, run={"steps": 8},
    )  # fmt: skip
    losses = [row["loss"] for row in steps(build(api.plan(config)), 8)]
    assert losses[-1] < losses[0]


def test_it_takes_the_place_of_a_transformer_under_its_heads(toy):
    eight = {**BACKBONE, "widths": [8, 16]}
    teacher = api.run(toy(run={"name": "teacher", "steps": 2}, backbone={"patch_size": 8})).folder
    heads = {"strategies": ["distill-heads"], "strategy": {"distill-heads": {"teacher": str(teacher)}}}
    run = api.run(toy(backbone=eight, **heads))
    assert all(math.isfinite(row["loss"]) for row in rows(run.folder / "metrics.jsonl"))


def test_a_convnext_teaches_a_convnext_with_its_own_pixel_statistics(toy):
    other = {"mean": [0.9], "std": [0.1]}
    teacher = api.run(toy(run={"name": "teacher", "steps": 2}, backbone=BACKBONE, augmentation=other)).folder
    heads = {"strategies": ["distill-heads"], "strategy": {"distill-heads": {"teacher": str(teacher)}}}
    parts = build(api.plan(toy(backbone=BACKBONE, **heads)))
    views = Views({"global": torch.rand(2, 3, 1, 16, 16)})
    assert parts.further["teacher"].scale is not None
    assert parts.objective.begun(views) == {}


def test_a_model_folder_teaches(toy, tmp_path):
    made().save(tmp_path / "m")
    config = toy(
        losses=["distill-features"], loss={"distill-features": {"teacher": str(tmp_path / "m")}},
        backbone={"patch_size": 8},
    )  # fmt: skip
    (teacher,) = build(api.plan(config)).further.values()
    assert type(teacher.backbone).__name__ == "ConvNextBackbone"


def test_a_part_of_the_weights_is_refused_by_the_plan(toy, tmp_path):
    made().save(tmp_path / "m")
    file = tmp_path / "m" / "model.safetensors"
    some = dict(list(load_file(file).items())[:2])
    save_file(some, file)
    with pytest.raises(ConfigError, match=r"backbone.weights: .*holds \d of the 3\d tensors"):
        api.plan(
            toy(
                backbone={
                    **NO_VIT,
                    "name": "dinov3-convnext",
                    "weights": str(tmp_path / "m"),
                    "other_channels": "average",
                }
            )
        )


def test_stages_freeze_as_blocks_do(toy):
    plan = api.plan(toy(backbone=BACKBONE, strategies=["freeze"], strategy={"freeze": {"blocks": 1}}))
    assert plan.trains.prefix == 2
    frozen = {name for name, p in build(plan).student.backbone.named_parameters() if not p.requires_grad}
    assert frozen == {name for name in plan.backbone.tensors if ".stages.0." in name}


def test_adapters_go_into_the_pointwise_layers(toy, tmp_path):
    made(channels=1).save(tmp_path / "m")
    config = toy(
        backbone={**NO_VIT, "name": "dinov3-convnext", "weights": str(tmp_path / "m")},
        strategies=["lora"], strategy={"lora": {"rank": 2, "roles": ["mlp"]}}, optimizer={"lr": 0.05},
    )  # fmt: skip
    plan = api.plan(config)
    trains = {name for name, p in build(plan).student.backbone.named_parameters() if p.requires_grad}
    assert trains == {
        f"model.model.stages.{stage}.layers.{layer}.pointwise_conv{part}.lora_{matrix}.default.weight"
        for stage, layer in ((0, 0), (1, 0), (1, 1))
        for part in (1, 2)
        for matrix in "AB"
    }
    assert plan.trains.trainable == sum(2 * 5 * width for width in (8, 16, 16)) * 2
    run = api.run(config)
    assert all(math.isfinite(row["loss"]) and row["gradient_norm"] > 0 for row in rows(run.folder / "metrics.jsonl"))
    start, other, merged = (
        transformers.AutoModel.from_pretrained(f).eval() for f in (tmp_path / "m", tmp_path / "m", run.export)
    )
    adapted = peft.PeftModel.from_pretrained(other, run.export / "adapter").eval()
    pixels = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        before, found, wanted = (m(pixel_values=pixels).last_hidden_state for m in (start, adapted, merged))
    error = (found - wanted).abs().max()
    assert error < 1e-5 * wanted.abs().max()
    assert (before - wanted).abs().max() > 100 * error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, 'strategy.lora.roles: no block has a linear layer of the role "query"; there are mlp'),
        (
            {"roles": [], "patterns": ["*depthwise*"]},
            r'strategy.lora.patterns: "\*depthwise\*" matches no linear layer of a block',
        ),
    ],
)
def test_adapters_where_it_has_no_linear_layers_are_refused(toy, options, message):
    with pytest.raises(ConfigError, match=message):
        api.plan(toy(backbone=BACKBONE, strategies=["lora"], strategy={"lora": {"rank": 2, **options}}))
