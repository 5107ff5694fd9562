"""Backbones that see channels apart, images of some channels, and exports that open without this project."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from dinomx_core import ConfigError, api
from dinomx_core.testing import toy as planes
from dinomx_core.training.build import build
from dinomx_core.training.construct import construct
from tests.fixtures import in_table, stream_of

README = Path(__file__).parents[1] / "README.md"
INNER = {"width": 32, "depth": 2, "heads": 2, "patch_size": 4}
FAMILIES = {
    "vit": {"name": "vit", **INNER},
    "dinov2": {"name": "dinov2", "layer_scale": 1.0, **INNER},
    "dinov2-registers": {"name": "dinov2-registers", "registers": 3, "layer_scale": 1.0, **INNER},
    "dinov3-vit": {"name": "dinov3-vit", "registers": 2, "layer_scale": 1.0, **INNER},
    "clip": {"name": "hf", "family": "clip_vision_model", **INNER},
    "siglip": {"name": "hf", "family": "siglip_vision_model", **INNER},
}


def made(name, inner="dinov2", channels=3, **options):
    """A backbone for crops of 16 px."""
    chosen = in_table("backbone", {"name": name, "inner": FAMILIES[inner], **options})
    torch.manual_seed(0)
    return construct(chosen, chosen.component.shape(chosen.options, channels, 16), 16).eval()


def alone(inner):
    chosen = in_table("backbone", FAMILIES[inner])
    torch.manual_seed(0)
    return construct(chosen, chosen.component.shape(chosen.options, 1, 16), 16).eval()


def config(toy, backbone, channels="all", inner="dinov2", count=3, **changes):
    data = {"name": "planes", "channels": count, "split": None}
    table = {
        "name": backbone,
        "inner": FAMILIES[inner],
        "width": None,
        "depth": None,
        "heads": None,
        "patch_size": None,
        "drop_path": None,
    }
    return toy(**{"data": data, "backbone": table, "augmentation": {"channels": channels}, **changes})


@pytest.mark.parametrize("inner", FAMILIES)
def test_one_channel_without_a_mark_is_the_transformer_itself(inner):
    backbone, plain, pixels = made("channel-tokens", inner, 1), alone(inner), torch.randn(2, 1, 16, 16)
    torch.nn.init.zeros_(backbone.channel_embedding)
    ours, theirs = backbone(pixels), plain(pixels)
    torch.testing.assert_close(ours.summary, theirs.summary)
    torch.testing.assert_close(ours.patches, theirs.patches)
    assert ours.registers.shape == theirs.registers.shape


@pytest.mark.parametrize("inner", FAMILIES)
def test_channels_are_known_by_their_marks_and_not_by_their_order(inner):
    backbone, pixels = made("channel-tokens", inner), torch.randn(2, 3, 16, 16)
    torch.nn.init.normal_(backbone.channel_embedding)
    whole = backbone(pixels)
    order = torch.tensor([[2, 0, 1]] * 2)
    turned = backbone(pixels[:, [2, 0, 1]], channels=order)
    torch.testing.assert_close(whole.summary, turned.summary, rtol=1e-4, atol=1e-5)
    assert whole.grid == (3, 4, 4) and whole.patches.shape == (2, 48, 32)
    torch.testing.assert_close(whole.patches[:, :16], turned.patches[:, 16:32], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(whole.summary, backbone(pixels[:, [2, 0, 1]]).summary, atol=1e-3)
    some = backbone(pixels[:, [1]], channels=torch.tensor([[1]] * 2))
    assert some.grid == (1, 4, 4) and not torch.allclose(some.summary, backbone(pixels[:, [1]]).summary, atol=1e-3)


@pytest.mark.parametrize("inner", FAMILIES)
def test_a_bag_is_each_channel_through_the_transformer_alone(inner):
    backbone, plain, pixels = made("bag-of-channels", inner), alone(inner), torch.randn(2, 3, 16, 16)
    whole = backbone(pixels)
    each = [plain(pixels[:, [n]]) for n in range(3)]
    torch.testing.assert_close(whole.features, torch.cat([tokens.summary for tokens in each], 1))
    torch.testing.assert_close(whole.patches, torch.cat([tokens.patches for tokens in each], 1))
    assert whole.grid == (3, 4, 4) and whole.features.shape == (2, 96)
    if whole.cls is not None:
        torch.testing.assert_close(whole.cls, torch.stack([tokens.cls for tokens in each]).mean(0))


@pytest.mark.parametrize("name", ["channel-tokens", "bag-of-channels"])
@pytest.mark.parametrize("inner", ["dinov2", "dinov3-vit"])
def test_masked_patches_are_those_of_every_channel_replaced_or_dropped(name, inner):
    backbone, pixels = made(name, inner), torch.randn(2, 3, 16, 16)
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[0, 3] = mask[1, 7] = True
    mask = mask.repeat(1, 3)
    changed = pixels.clone()
    changed[0, :, :4, 12:], changed[1, :, 4:8, 12:] = 9.0, 9.0  # the pixels of these patches
    replaced = [backbone(p, mask, "replace") for p in (pixels, changed)]
    torch.testing.assert_close(replaced[0].patches, replaced[1].patches)
    dropped = [backbone(p, mask, "drop") for p in (pixels, changed)]
    torch.testing.assert_close(dropped[0].features, dropped[1].features)
    assert dropped[0].patches.shape == (2, 45, 32)


def test_sampled_channels_are_one_set_a_step_and_do_not_depend_on_workers(toy):
    found = []
    for workers in (0, 2):
        parts = build(
            api.plan(
                config(toy, "channel-tokens", "each", count=5, loader={"workers": workers}, run={"steps": 6}),
                plugins=[planes],
            )
        )
        stream = stream_of(parts)
        found.append([next(stream)[0] for _ in range(6)])
    sizes = set()
    for ours, theirs in zip(*found):
        for view in ("global", "local"):
            assert torch.equal(ours.pixels[view], theirs.pixels[view]) and torch.equal(
                ours.channels[view], theirs.channels[view]
            )
            assert (ours.channels[view] == ours.channels[view][0]).all()  # one set a step
            assert ours.pixels[view].shape[2] == ours.channels[view].shape[1]
            sizes.add(ours.channels[view].shape[1])
    assert len(sizes) > 2 and sizes <= {1, 2, 3, 4, 5}
    assert any(not torch.equal(v.channels["global"][0], v.channels["local"][0]) for v in found[0])


def test_sampled_channels_keep_their_own_statistics(toy):
    made_of = config(
        toy,
        "channel-tokens",
        "each",
        count=5,
        augmentation={"channels": "each", "mean": [0.0, 10.0, 20.0, 30.0, 40.0], "std": [1.0]},
    )
    stream = stream_of(build(api.plan(made_of, plugins=[planes])))
    for _ in range(3):
        views = next(stream)[0]
        means = views.pixels["global"].mean((0, 1, 3, 4))
        wanted = -10.0 * views.channels["global"][0]
        assert ((means - wanted).abs() < 1).all()


def test_one_channel_an_image_is_the_same_in_all_of_its_crops(toy):
    parts = build(api.plan(config(toy, "bag-of-channels", "one", count=5), plugins=[planes]))
    views = next(stream_of(parts))[0]
    assert views.pixels["global"].shape[2] == views.pixels["local"].shape[2] == 1
    assert torch.equal(views.channels["global"], views.channels["local"]) and len(views.channels["global"].unique()) > 1


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["dinov1-small", "dinov2-small", "dinov3-small"])
@pytest.mark.parametrize(
    ("name", "channels"), [("channel-tokens", "each"), ("bag-of-channels", "one"), ("bag-of-channels", "all")]
)
def test_every_method_trains_them_and_resumes_bit_identically(tmp_path, recipe, name, channels):
    inner = {"dinov1-small": "vit", "dinov2-small": "dinov2-registers", "dinov3-small": "dinov3-vit"}[recipe]
    tiny = {"prototypes": 32, "hidden": 16, "bottleneck": 8}
    table = {
        "recipe": recipe,
        "run": {"name": "whole", "out": str(tmp_path), "steps": 4, "batch_size": 4},
        "loader": {"workers": 0},
        "data": {"name": "planes", "channels": 4, "count": 12},
        "backbone": {"name": name, "inner": FAMILIES[inner]},
        "head": dict.fromkeys(("dino",) if recipe == "dinov1-small" else ("dino", "ibot"), tiny),
        "augmentation": {
            "channels": channels,
            "mean": [0.5],
            "std": [0.3],
            "globals": {"size": 16},
            "locals": {"size": 8, "count": 2},
        },
        "checkpoint": {"every": 2},
    }
    whole = api.run(table, plugins=[planes]).folder
    table["run"]["name"] = "cut"
    cut = api.run(table, plugins=[planes]).folder
    for file in (cut / "checkpoints").glob("4/*"):
        file.unlink()
    (cut / "checkpoints" / "4").rmdir()
    api.run(table, plugins=[planes], resume=True)
    for network in ("student", "teacher"):
        ours, theirs = (load_file(f / "checkpoints" / "4" / f"{network}.safetensors") for f in (whole, cut))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def code_in_readme(word):
    return next(text for text in re.findall(r"```py\n(.*?)```", README.read_text(), re.DOTALL) if word in text)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "word"), [("bag-of-channels", "flatten(1)\n"), ("channel-tokens", "marks")])
def test_an_export_opens_without_this_project(toy, name, word):
    result = api.run(config(toy, name), plugins=[planes])
    model = api.load(result.folder, plugins=[planes])
    images = [torch.rand(3, 16, 16) for _ in range(2)]
    wanted = model(images).features
    mean, std = (
        torch.tensor(json.loads((result.export / "preprocessor_config.json").read_text())[f"image_{n}"])
        for n in ("mean", "std")
    )
    how = model.preprocessing
    assert how.crop.height == 16
    from dinomx_core.training.evaluation import preprocess
    from dinomx_core.training.flow import Item

    pixels = torch.stack([preprocess(Item(image), how) for image in images])
    assert mean.shape == std.shape == (3,)
    names = {
        "AutoModel": AutoModel,
        "folder": str(result.export),
        "pixels": pixels,
        "torch": torch,
        "load_file": load_file,
    }
    with torch.no_grad():
        exec(code_in_readme(word), names)
    torch.testing.assert_close(names["features"], wanted, rtol=1e-5, atol=1e-5)


def test_images_of_different_channels_need_a_backbone_that_takes_them(toy, tmp_path):
    sources = {"a": {"name": "named", "names": ["dna", "er"]}, "b": {"name": "named", "names": ["er", "rna", "agp"]}}
    data = {"name": "mix", "split": None, "sources": sources, "weights": {"a": 1.0, "b": 3.0}}
    from tests import named_planes

    plain = toy(run={"batch_size": 4}, data=data)
    with pytest.raises(ConfigError, match=re.escape(
        "data: holds images of different channels (2, 3 of 4), and this backbone needs all of them in each; take a channel-adaptive one "
        "(channel-tokens, bag-of-channels)"
    )):  # fmt: skip
        api.plan(plain, plugins=[named_planes])
    table = config(toy, "channel-tokens", run={"batch_size": 4, "steps": 40}, data=data)
    plan = api.plan(table, plugins=[named_planes])
    assert plan.data.names == ("dna", "er", "rna", "agp") and plan.data.channels == 4
    stream = stream_of(build(plan))
    sets = [tuple(next(stream)[0].channels["global"][0].tolist()) for _ in range(40)]
    assert set(sets) == {(0, 1), (1, 2, 3)}
    assert 0.6 < sets.count((1, 2, 3)) / 40 < 0.9


def test_a_bags_features_of_different_channels_are_not_compared(toy):
    from dinomx_core import DataError
    from dinomx_core.training.evaluation import make_encoder, summaries
    from dinomx_core.training.flow import Item
    from tests import named_planes

    data = {"name": "named", "names": ["a", "b", "c"], "split": None, "channels": None}
    plan = api.plan(config(toy, "bag-of-channels", data=data), plugins=[named_planes])
    parts = build(plan)
    encoder = make_encoder(parts.teacher.network.backbone, plan.preprocessing, 3, parts.parallelism, parts.intensity)
    images = [Item(torch.rand(n, 20, 20), label=0, channels=tuple(range(n))) for n in (2, 2, 3)]
    with pytest.raises(
        DataError, match="images of different channels have features of different widths with this backbone"
    ):
        summaries(encoder, plan.spec.data, images, 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "channels"), [("channel-tokens", "all"), ("channel-tokens", "each"), ("bag-of-channels", "one")]
)
def test_images_of_different_channels_train_together(toy, name, channels):
    from tests import named_planes

    sources = {"a": {"name": "named", "names": ["dna", "er"]}, "b": {"name": "named", "names": ["er", "rna", "agp"]}}
    data = {"name": "mix", "split": None, "sources": sources}
    found = []
    for workers in (0, 2):
        run = {"name": f"w{workers}", "batch_size": 4, "steps": 6}
        mean = [0.1, 0.2, 0.3, 0.4]  # of each channel, of which an image has some
        table = config(
            toy,
            name,
            run=run,
            data=data,
            loader={"workers": workers},
            augmentation={"channels": channels, "mean": mean},
        )
        result = api.run(table, plugins=[named_planes])
        found.append(
            [row["loss"] for row in map(json.loads, (result.folder / "metrics.jsonl").read_text().splitlines())]
        )
    assert found[0] == found[1] and len(found[0]) == 6
