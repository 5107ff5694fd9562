"""MONAI's ViT as a backbone: its features are MONAI's own, its exports are transformers', and every strategy finds its parts."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from monai.networks.nets import ViT
from PIL import Image
from torch import nn

from dinomx_core import ConfigError, api
from dinomx_core.training.attention import recorded
from dinomx_core.training.build import build
from dinomx_interpret.api import explain
from dinomx_monai_vit import plugin
from dinomx_monai_vit.vit import MonaiBackbone
from tests.fixtures import rows, steps

VARIANTS = [
    {},
    {"class_token": False},
    {"positions": "sincos", "qkv_bias": True},
    {"class_token": False, "positions": "sincos", "mlp_ratio": 1.5},
    {"mask_token": True, "depth": 1, "init_std": 0.1},
]
TABLE = {"name": "monai-vit", "drop_path": None}


def made(channels=3, **options):
    """A backbone with random weights in all of its tensors, and its declared shape."""
    chosen = plugin.MonaiViT(**{"width": 16, "depth": 2, "heads": 2, "patch_size": 4, **options})
    shape = plugin.shape(chosen, channels, 16)
    torch.manual_seed(0)
    backbone = MonaiBackbone(chosen, shape, 16).eval()
    for parameter in backbone.parameters():
        nn.init.normal_(parameter, std=0.3)
    return backbone, shape


def monais(backbone, **options):
    """MONAI's own network, as its users build it, with the same weights."""
    o = backbone.options
    own = ViT(
        backbone.model.patch_embedding.patch_embeddings.in_channels, 16, 4, 16, plugin.mlp_width(o), o.depth, o.heads,
        pos_embed_type=o.positions, classification=o.class_token, spatial_dims=2, qkv_bias=o.qkv_bias, **options,
    ).eval()  # fmt: skip
    state = backbone.model.state_dict()
    for number in range(o.depth):
        at = f"blocks.{number}.attn."
        for leaf in ("weight", "bias") if o.qkv_bias else ("weight",):
            state[f"{at}qkv.{leaf}"] = torch.cat([state.pop(f"{at}{name}.{leaf}") for name in ("to_q", "to_k", "to_v")])
    report = own.load_state_dict(state, strict=False)
    assert not report.unexpected_keys
    assert not [name for name in report.missing_keys if "norm_cross_attn" not in name and "classification" not in name]
    if o.class_token:
        del own.classification_head
    return own


def flat(tokens):
    return tokens.patches if tokens.cls is None else torch.cat([tokens.cls[:, None], tokens.patches], 1)


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("options", VARIANTS)
def test_the_plan_knows_every_parameter(options, channels):
    backbone, shape = made(channels, **options)
    assert dict(shape.tensors) == {name: tuple(p.shape) for name, p in backbone.named_parameters()}
    assert shape.parameters == sum(p.numel() for p in backbone.parameters())
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    assert shape.tokens(24) == flat(backbone(torch.rand(1, channels, 24, 24))).shape[1]


@pytest.mark.parametrize("options", VARIANTS)
def test_features_and_attentions_are_monais_own(options):
    backbone, _ = made(**options)
    own, pixels = monais(backbone, save_attn=True), torch.rand(2, 3, 16, 16)
    with torch.no_grad(), recorded() as maps:
        ours, theirs = flat(backbone(pixels)), own(pixels)[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert len(maps) == backbone.options.depth
    for found, block in zip(maps, own.blocks, strict=True):
        torch.testing.assert_close(found, block.attn.att_mat, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("size", [(16, 16), (24, 8)])
def test_exports_are_of_transformers_and_come_back(tmp_path, options, size):
    backbone, shape = made(**options)
    backbone.save(tmp_path)
    again = MonaiBackbone(backbone.options, shape, 16).eval()
    again.load(tmp_path)
    pixels = torch.rand(2, 3, *size)
    with torch.no_grad():
        theirs = transformers.AutoModel.from_pretrained(tmp_path)(pixels, interpolate_pos_encoding=True)
        ours = flat(backbone(pixels))
        assert torch.equal(flat(again(pixels)), ours)
    torch.testing.assert_close(theirs.last_hidden_state, ours, rtol=1e-5, atol=1e-5)


def test_masked_patches_say_nothing_and_dropped_ones_are_not_there():
    backbone, _ = made(mask_token=True)
    pixels, mask = torch.rand(2, 3, 16, 16), torch.zeros(2, 16, dtype=torch.bool)
    mask[:, 5] = True
    changed = pixels.clone()
    changed[:, :, 4:8, 4:8] += 1  # row 1, column 1 of four
    with torch.no_grad():
        for how in ("replace", "drop"):
            assert torch.equal(backbone(pixels, mask, how).cls, backbone(changed, mask, how).cls)
        assert not torch.equal(backbone(pixels).cls, backbone(changed).cls)
        assert backbone(pixels, mask, "drop").patches.shape[1] == 15


def test_the_first_tokens_alone_are_the_same():
    backbone, _ = made()
    pixels = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(backbone(pixels, short=True).cls, backbone(pixels).cls)
    assert not made(class_token=False)[0].can_shorten  # a mean over no patches


def test_initial_weights_spread_as_they_are_told_to():
    options = plugin.MonaiViT(width=64, depth=1, heads=2, patch_size=4, init_std=0.125)
    backbone = MonaiBackbone(options, plugin.shape(options, 3, 16), 16)
    for name, parameter in backbone.named_parameters():
        if parameter.ndim > 1 and parameter.numel() > 1000:
            assert float(parameter.detach().std()) == pytest.approx(0.125, rel=0.1), name
    assert torch.equal(backbone.blocks[0].norm1.weight, torch.ones(64))


def test_dropout_is_on_in_training_alone():
    backbone, _ = made(dropout=0.5)
    pixels = torch.rand(2, 3, 16, 16)
    assert torch.equal(backbone(pixels).cls, backbone(pixels).cls)
    backbone.train()
    assert not torch.equal(backbone(pixels).cls, backbone(pixels).cls)


@pytest.mark.parametrize(
    ("name", "options", "trains"),
    [
        ("lora", {"rank": 2}, {"attn.to_q.lora_", "attn.to_v.lora_"}),
        ("freeze", {"blocks": 1}, {"model.blocks.1.", "model.norm."}),
        ("freeze", {"parts": ["query", "key", "value", "embeddings"]}, {"attn.out_proj.", "mlp.", "norm"}),
    ],
)
def test_strategies_find_its_parts(toy, name, options, trains):
    plan = api.plan(toy(backbone=TABLE, strategies=[name], strategy={name: options}), plugins=[plugin])
    parts = build(plan)
    ours = {name: p for name, p in parts.student.backbone.named_parameters() if p.requires_grad}
    assert plan.trains.trainable == sum(p.numel() for p in ours.values())
    assert all(any(part in found for part in trains) for found in ours)
    assert all(any(part in found for found in ours) for part in trains)
    assert all(row["gradient_norm"] > 0 for row in steps(parts, 2))


@pytest.mark.parametrize("class_token", [True, False])
def test_a_run_with_local_crops_ends_in_a_model(toy, class_token):
    result = api.run(toy(backbone={**TABLE, "class_token": class_token}), plugins=[plugin])
    model = api.load(result.export, plugins=[plugin])
    tokens = model([torch.zeros(1, 8, 8, dtype=torch.uint8)])
    assert tokens.patches.shape == (1, 16, 16)
    assert (tokens.cls is None) != class_token
    assert all(row["gradient_norm"] > 0 for row in rows(result.folder / "metrics.jsonl"))


def test_what_it_attends_to_can_be_drawn(toy, tmp_path):
    result = api.run(toy(backbone=TABLE), plugins=[plugin])
    Image.fromarray(np.eye(16, dtype=np.uint8)).save(tmp_path / "stroke.png")
    found = explain(result.export, [tmp_path / "stroke.png"], out=tmp_path / "seen", plugins=[plugin])
    panels = {panel["name"] for panel in found["images"][0]["panels"]}
    assert {"attention-mean", "rollout", "attention-head-1", "attention-head-2", "pca", "similarity"} <= panels
    assert (found["heads"], found["blocks"], found["query"]) == (2, 2, "class token")


@pytest.mark.slow
def test_the_example_learns(tmp_path):
    config = Path(__file__).parents[1] / "example.toml"
    sets = [f"run.out={tmp_path}", "run.device=cpu", "run.threads=1"]
    result = api.run(config, overrides=sets, plugins=[plugin])
    found = rows(result.folder / "metrics.jsonl")
    assert found[-1]["dino/kl"] < 0.2 * found[0]["dino/kl"]
    assert found[-1]["dino/prototypes"] > 100
    start, *_, end = [row["knn/accuracy@20"] for row in rows(result.folder / "evaluations.jsonl")]
    assert end > start + 0.05
    assert not (result.folder / "health.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "backbone.heads: width 16 does not divide over 3 heads"),
        (
            {"positions": "sincos", "width": 18},
            'backbone.positions: "sincos" needs a width that 4 divides, and it is 18',
        ),
        ({"image_size": 18}, "backbone.image_size: 18 is not a multiple of patch_size 4"),
        ({"mlp_ratio": 0.01}, "backbone.mlp_ratio: 0.01 leaves the MLP no hidden feature"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(toy, options, message):
    with pytest.raises(ConfigError) as caught:
        api.plan(toy(backbone={**TABLE, **options}), plugins=[plugin])
    assert message in str(caught.value).replace("config: ", "")
