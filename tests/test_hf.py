"""The `hf` backbone: every family against its own transformers model, and weights that are no good."""

import json
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from dinomx_core import ConfigError, DataError, api
from dinomx_core.builtin.families import FAMILIES, Hf, hf_shape
from dinomx_core.builtin.hf import build_hf
from dinomx_core.training import attention
from dinomx_core.training.build import build
from tests.fixtures import rows

EXTRA = {
    "beit": {"layer_scale_init_value": 0.1, "use_relative_position_bias": True},
    "dinov2": {"use_swiglu_ffn": True},
    "dinov2_with_registers": {"num_register_tokens": 3},
    "dinov3_vit": {"num_register_tokens": 2, "use_gated_mlp": True},
}
VARIANTS = (
    [(family, {}) for family in FAMILIES]
    + list(EXTRA.items())
    + [
        (
            "beit",
            {
                "use_shared_relative_position_bias": True,
                "use_absolute_position_embeddings": True,
                "use_mean_pooling": False,
            },
        ),
        ("vit", {"qkv_bias": False}),
    ]
)
IDS = [f"{family}{'-' + '-'.join(config) if config else ''}" for family, config in VARIANTS]


def opened(folder, options=None, channels=3):
    chosen = Hf(weights=str(folder), **(options or {}))
    backbone = build_hf(chosen, hf_shape(chosen, channels, 32), 32)
    return backbone.eval(), backbone.warm_start()


def theirs(family, folder, pixels, mask=None):
    """last_hidden_state of transformers' own model, called as a whole with its own attention."""
    how = FAMILIES[family]
    arguments = {"use_mask_token": mask is not None} if how.mask == "argument" else {}
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager", **arguments).eval()
    if family not in ("dinov2", "dinov2_with_registers", "dinov3_vit", "beit"):
        arguments = {"interpolate_pos_encoding": True}
    else:
        arguments = {}
    if mask is not None:
        arguments["bool_masked_pos"] = mask
    with torch.no_grad():
        return model(pixels, **arguments).last_hidden_state


def flat(tokens):
    parts = [] if tokens.cls is None else [tokens.cls[:, None]]
    return torch.cat([*parts, tokens.registers, tokens.patches], 1)


def same(ours, wanted):
    assert float((ours - wanted).abs().max() / wanted.abs().max()) < 1e-6


@pytest.mark.parametrize(("family", "config"), VARIANTS, ids=IDS)
@pytest.mark.parametrize("size", [(32, 32), (40, 24)], ids=["square", "oblong"])
def test_features_are_the_models_own(model_folder, family, config, size):
    folder = model_folder(family, config=config)
    backbone, start = opened(folder)
    count = len(backbone.model.state_dict())
    assert start.report == f"{count}/{count} tensors loaded"
    pixels = torch.randn(2, 3, *size)
    with torch.no_grad():
        tokens = backbone(pixels)
    same(flat(tokens), theirs(family, folder, pixels))
    registers = config.get("num_register_tokens", 4 if family == "dinov2_with_registers" else 0) + (family == "deit")
    assert tokens.registers.shape[1] == registers and tokens.grid == (1, size[0] // 8, size[1] // 8)
    assert tokens.patches.shape[1] == tokens.grid[1] * tokens.grid[2]
    assert (tokens.cls is None) == (family in ("ijepa", "siglip_vision_model"))


@pytest.mark.parametrize(("family", "config"), VARIANTS, ids=IDS)
def test_masked_features_are_the_models_own(model_folder, family, config):
    folder = model_folder(family, config=config, mask_token=True)
    backbone, _ = opened(folder, {"mask_token": True})
    pixels, mask = torch.randn(2, 3, 32, 32), torch.rand(2, 16) < 0.5
    with torch.no_grad():
        hidden = backbone(pixels, mask, "replace")
        if (
            FAMILIES[family].mask == "added"
        ):  # these models have none of their own: a masked patch says nothing of its pixels
            changed = pixels.clone()
            changed[0, :, :8, :8] = 9.0
            mask[0, 0] = True
            torch.testing.assert_close(
                flat(backbone(pixels, mask, "replace")), flat(backbone(changed, mask, "replace"))
            )
        else:
            same(flat(hidden), theirs(family, folder, pixels, mask))


@pytest.mark.parametrize(("family", "config"), VARIANTS, ids=IDS)
def test_the_plan_counts_parameters_exactly(family, config):
    for mask_token in (False, True):
        options = Hf(family=family, width=32, depth=2, heads=4, patch_size=8, mask_token=mask_token, config=config)
        shape = hf_shape(options, 5, 32)
        backbone = build_hf(options, shape, 32)
        assert dict(shape.tensors) == {name: tuple(p.shape) for name, p in backbone.named_parameters()}
        assert shape.parameters == sum(p.numel() for p in backbone.parameters())
        assert shape.layout == backbone.layout
        assert shape.tokens(32) == flat(backbone(torch.randn(1, 5, 32, 32))).shape[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_by_role_blocks_attentions_and_the_last_blocks(model_folder, family):
    backbone, _ = opened(model_folder(family))
    assert len(backbone.blocks) == 3
    for role in ("query", "key", "value", "output", "mlp", "norm"):
        for name in backbone.roles[role]:
            assert isinstance(backbone.blocks[1].get_submodule(name), torch.nn.Module)
    depths = {backbone.layer_of(name) for name, _ in backbone.named_parameters()}
    assert depths >= {0, 1, 2, 3} and depths <= {0, 1, 2, 3, 4}
    assert [n for n, p in backbone.named_parameters() if backbone.is_patch_embedding(n) and p.ndim == 4]
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad(), attention.recorded() as maps:
        last = backbone(pixels, layers=2)
    tokens = flat(last[1]).shape[1]
    assert [tuple(m.shape) for m in maps] == [(2, 4, tokens, tokens)] * 3
    torch.testing.assert_close(maps[0].sum(-1), torch.ones(2, 4, tokens))
    with torch.no_grad():
        torch.testing.assert_close(flat(last[1]), flat(backbone(pixels)))
    assert not torch.allclose(flat(last[0]), flat(last[1]))


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "beit"])
def test_dropped_patches_leave_the_others_as_if_they_had_never_been(model_folder, family):
    backbone, _ = opened(model_folder(family))
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[0, [1, 5, 7]] = mask[1, [0, 2, 15]] = True
    pixels = torch.randn(2, 3, 32, 32)
    noisy = torch.where(mask.view(2, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3), 7.0, pixels)
    with torch.no_grad():
        kept, again = backbone(pixels, mask, "drop"), backbone(noisy, mask, "drop")
    assert kept.patches.shape[1] == 13
    torch.testing.assert_close(flat(kept), flat(again))


def test_rotary_positions_of_dropped_patches_stay_with_their_patches(model_folder):
    backbone, _ = opened(model_folder("dinov3_vit"))
    hidden = backbone.embed(torch.randn(2, 3, 32, 32))
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[0, 3] = mask[1, 8] = True
    cos, _ = backbone.drop(hidden, mask).context["position_embeddings"]
    full = hidden.context["position_embeddings"][0]
    assert torch.equal(cos[0, 0], full[~mask[0]]) and torch.equal(cos[1, 0], full[~mask[1]])


def test_gradients_reach_every_parameter_that_trains(model_folder):
    for family in FAMILIES:
        backbone, _ = opened(model_folder(family, name=family))
        backbone.train()
        flat(backbone(torch.randn(2, 3, 32, 32))).square().sum().backward()
        without = [n for n, p in backbone.named_parameters() if p.requires_grad and p.grad is None]
        assert [n for n in without if not n.endswith("mask_token")] == []


@pytest.mark.parametrize("family", [f for f in FAMILIES if FAMILIES[f].drop_path])
def test_drop_path_skips_whole_branches_in_training_only(model_folder, family):
    backbone, _ = opened(model_folder(family), {"drop_path": 0.9, "drop_path_rule": "uniform"})
    pixels = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(flat(backbone(pixels)), flat(opened(model_folder(family, name="plain"))[0](pixels)))
        torch.manual_seed(0)
        assert not torch.allclose(flat(backbone.train()(pixels)), flat(backbone(pixels)))


def test_other_channels_are_averaged_so_that_equal_channels_embed_as_before(model_folder):
    folder = model_folder("vit")
    colour, _ = opened(folder)
    grey, _ = opened(folder, {"other_channels": "average"}, channels=1)
    many, _ = opened(folder, {"other_channels": "average"}, channels=5)
    image = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        wanted = flat(colour(image.expand(-1, 3, -1, -1)))
        torch.testing.assert_close(flat(grey(image)), wanted, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(flat(many(image.expand(-1, 5, -1, -1))), wanted, rtol=1e-5, atol=1e-5)


def test_the_vision_tower_of_a_whole_clip_or_siglip_loads(tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    vision = {**sizes, "image_size": 32, "patch_size": 8}
    for name, config, model in (("clip", "CLIPConfig", "CLIPModel"), ("siglip", "SiglipConfig", "SiglipModel")):
        whole = getattr(transformers, model)(
            getattr(transformers, config)(text_config={**sizes, "vocab_size": 99}, vision_config=vision)
        )
        whole.eval().save_pretrained(tmp_path / name)
        backbone, start = opened(tmp_path / name)
        count = len(backbone.model.state_dict())
        assert start.report.startswith(f"{count}/{count} tensors loaded; ")
        assert "of its tensors are not used" in start.report and "text_model" in start.report
        pixels = torch.randn(1, 3, 32, 32)
        with torch.no_grad():
            same(flat(backbone(pixels)), whole.vision_model(pixels).last_hidden_state)


def test_a_classifier_checkpoint_loads_without_its_head(tmp_path):
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=32, patch_size=8
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    _, start = opened(tmp_path / "vit")
    assert start.report.endswith("; 2 of its tensors are not used (classifier)")


# What is no good -------------------------------------------------------------------------------------------------------


def refused(toy, weights, **backbone):
    """The messages of a plan on these weights, and no run folder left."""
    config = toy(
        data={"name": "digits"}, backbone={"name": "hf", "weights": str(weights), "width": None, "depth": None,
        "heads": None, "patch_size": None, "drop_path": None, "other_channels": "average", **backbone},
        augmentation={"globals": {"size": 32}, "locals": {"size": 16}},
    )  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        api.plan(config)
    return str(caught.value)


def test_a_missing_folder_and_a_folder_without_weights_are_refused(toy, tmp_path, model_folder):
    assert "backbone.weights: there is no folder" in refused(toy, tmp_path / "nowhere")
    folder = model_folder()
    (folder / "model.safetensors").rename(tmp_path / "away")
    assert f"backbone.weights: {folder}: has no weights (model.safetensors or" in refused(toy, folder)
    (folder / "pytorch_model.bin").write_bytes(b"")
    assert "has only pytorch_model.bin, a pickle, which can run code when it is read" in refused(toy, folder)
    (folder / "config.json").unlink()
    assert f"backbone.weights: {folder}: there is no config.json" in refused(toy, folder)


def test_an_unknown_model_id_says_that_the_hub_is_out_of_reach(toy):
    message = refused(toy, "nobody/nothing")
    assert 'backbone.weights: there is no folder or file "nobody/nothing"' in message
    assert "and no such model in the cache or on the hub (offline: HF_HUB_OFFLINE is set)" in message


def test_a_model_id_is_found_in_the_cache(toy, tmp_path, model_folder, monkeypatch):
    from huggingface_hub import constants

    cache = tmp_path / "cache"
    snapshot = cache / "models--lab--small" / "snapshots" / "0123456789012345678901234567890123456789"
    snapshot.parent.mkdir(parents=True)
    shutil.copytree(model_folder(), snapshot)
    (cache / "models--lab--small" / "refs").mkdir()
    (cache / "models--lab--small" / "refs" / "main").write_text(snapshot.name)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(cache))
    backbone, start = opened("lab/small")
    assert start.weights == "lab/small" and start.report.startswith(f"{len(backbone.model.state_dict())}/")


@pytest.mark.parametrize("cut", [1, 1000])
def test_truncated_weights_are_refused_before_anything_is_built(toy, model_folder, cut):
    folder = model_folder()
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-cut])
    assert (
        f"not a whole safetensors file ({len(whole) - cut} bytes where the header announces {len(whole)})"
        in refused(toy, folder)
    )
    (folder / "model.safetensors").write_bytes(b"no tensors")
    assert "not a whole safetensors file" in refused(toy, folder)


def test_weights_of_another_width_are_refused(toy, model_folder):
    folder = model_folder()
    assert f"backbone.width: 64, but the weights have 32 ({folder}/config.json)" in refused(toy, folder, width=64)
    assert "backbone.depth: 12, but the weights have 3" in refused(toy, folder, depth=12)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 48}))
    assert "projection.weight is [32, 3, 8, 8] where config.json makes it [48, 3, 8, 8]" in refused(toy, folder)


def test_odd_configs_are_refused_in_words(toy, model_folder):
    folder = model_folder("vit")
    config = json.loads((folder / "config.json").read_text())
    for change, message in (
        ({"patch_size": [8, 4]}, "patch_size is [8, 4]; expected a whole number above 0 (squares only)"),
        ({"intermediate_size": None}, "intermediate_size is None; expected a whole number above 0"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0; expected a whole number above 0"),
        ({"model_type": ["vit"]}, "of which DINO-MX does not know how to tell patch tokens apart"),
    ):
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        assert message in refused(toy, folder)
    (folder / "config.json").write_text(json.dumps({**config, "patch_size": [8, 8], "image_size": [32, 32]}))
    assert opened(folder)[0].patch_size == 8
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": "nonsense"}))
    with pytest.raises(DataError, match="the config cannot be built: 'nonsense'"):
        opened(folder)
    with pytest.raises(DataError, match="vit has no widht"):
        build_hf(Hf(family="vit", config={"widht": 3}), hf_shape(Hf(family="vit", config={"widht": 3}), 3, 32), 32)


def test_shards_load_and_a_missing_one_is_named(toy, tmp_path, model_folder):
    folder = model_folder("vit")
    transformers.ViTModel.from_pretrained(folder).save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert "tensors loaded" in opened(tmp_path / "shards")[1].report
    shard = next((tmp_path / "shards").glob("model-00002-of-*.safetensors"))
    shard.unlink()
    assert f"{shard}: is missing; fetch or copy it again" in refused(toy, tmp_path / "shards")
    (tmp_path / "shards" / "model.safetensors.index.json").write_text('{"weight_map": [1]}')
    assert "has no weight_map of tensors to files" in refused(toy, tmp_path / "shards")


def test_models_without_patches_are_refused(toy, tmp_path):
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], num_channels=3)
    transformers.ResNetModel(config).save_pretrained(tmp_path / "resnet")
    message = refused(toy, tmp_path / "resnet")
    assert (
        'holds a model of type "resnet", of which DINO-MX does not know how to tell patch tokens apart; known: vit, deit'
        in message
    )


def test_channels_that_differ_are_refused_with_the_remedy(toy, model_folder):
    message = refused(toy, model_folder(), other_channels="refuse")
    assert (
        'made for 3 channels, the data have 1; set other_channels = "average" or read the data with as many channels'
        in message
    )


def test_weights_that_lack_tensors_are_refused_unless_the_config_names_them(model_folder):
    folder = model_folder("dinov2")
    state = load_file(folder / "model.safetensors")
    gone = [name for name in state if "layer.1.norm1" in name]
    save_file(
        {name: t for name, t in state.items() if name not in gone}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(DataError) as caught:
        opened(folder)
    total = len(state)
    assert str(caught.value) == (
        f"{folder}: {total - 2}/{total} tensors fit the backbone; not so encoder.layer.1.norm1.bias, encoder.layer.1.norm1.weight"
    )
    _, start = opened(folder, {"missing": ["encoder.layer.1.norm1.*"]})
    assert (
        start.report.startswith(f"{total - 2}/{total} tensors loaded")
        and "fresh, as `missing` allows: encoder.layer.1" in start.report
    )


def test_weights_with_more_blocks_than_their_config_are_refused(model_folder):
    folder = model_folder("vit")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    with pytest.raises(DataError, match=r"38/38 tensors fit the backbone; not so layers\.2\."):
        opened(folder)


def test_masks_without_a_mask_token_are_refused_by_the_plan(toy, model_folder):
    from tests import toy_objectives

    config = toy(
        data={"name": "digits"}, backbone={"name": "hf", "weights": str(model_folder("vit")), "width": None, "depth": None,
        "heads": None, "patch_size": None, "drop_path": None, "other_channels": "average"},
        loss={"dino": None, "predict": {}}, head={"dino": None, "predictor": {"outputs": 32}},
        augmentation={"name": "masked", "mean": None, "std": None, "globals": {"size": 32}, "locals": None},
    )  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        api.plan(config, plugins=[toy_objectives])
    assert "backbone.mask_token: has no mask token, which loss.predict needs; set backbone.mask_token = true" in str(
        caught.value
    )


@pytest.mark.slow
def test_a_warm_start_trains_is_evaluated_at_step_0_and_exports(toy, model_folder):
    folder = model_folder("dinov2", channels=1)
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5], "image_std": [0.5]}')
    (folder / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    knn = {
        "every": "100%",
        "k": [5],
        "bank": {"name": "digits", "split": "train"},
        "query": {"name": "digits", "split": "test"},
    }
    config = toy(
        backbone={"name": "hf", "weights": str(folder), "width": None, "depth": None, "heads": None, "patch_size": None,
        "drop_path": None}, augmentation={"globals": {"size": 32}, "locals": {"size": 16}}, evaluate={"knn": knn},
    )  # fmt: skip
    the_plan = api.plan(config)
    assert any("but the weights were trained with [0.5] and [0.5]" in warning for warning in the_plan.warnings)
    parts = build(the_plan)
    started = opened(folder, channels=1)[0].model.state_dict()
    for network in (parts.student, parts.teacher.network):
        state = network.backbone.model.state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in started.items())
    result = api.run(config)
    assert [row["step"] for row in rows(result.folder / "evaluations.jsonl")] == [0, 4]
    again = api.load(result.export)  # needs the base weights no more
    shutil.rmtree(folder)
    assert torch.equal(
        api.load(result.export).backbone.state_dict()["model.layernorm.weight"],
        again.backbone.state_dict()["model.layernorm.weight"],
    )
    card = (result.export / "README.md").read_text()
    assert "base_model" not in card and "Started from `model`" in card and "license: cc-by-4.0" in card
    assert f"{len(started)}/{len(started)} tensors loaded" in card
    without = api.plan(
        {**config, "evaluate": {}, "run": {**config["run"], "name": "x"}, "backbone": {"name": "hf", "family": "vit"}}
    )
    assert without.backbone.warm == ""
