"""DINOv3's parts against their definitions."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from dinomx_core import ConfigError, api
from dinomx_core.training.build import build
from dinomx_core.training.data import collate
from dinomx_core.training.flow import Tokens
from dinomx_core.training.loop import make_images
from dinomx_dinov3 import plugin
from dinomx_dinov3.gram import gram_distance
from dinomx_dinov3.head import Dinov3Head
from tests.fixtures import KNN, TIMINGS, rows, update
from tests.parity.replay import GOLDENS

RECORDED = load_file(GOLDENS / "losses.safetensors")
V3 = {
    "backbone": {"name": "dinov3-vit", "width": 16, "depth": 2, "heads": 2, "patch_size": 4},
    "head": {
        "dino": {"name": "dinov3", "prototypes": 32, "hidden": 16, "bottleneck": 8},
        "ibot": {"name": "dinov3", "prototypes": 24, "hidden": 16, "bottleneck": 8},
    },
    "loss": {
        "dino": {"masked": True, "target": {"name": "sinkhorn-knopp"}},
        "ibot": {"target": {"name": "sinkhorn-knopp"}},
        "koleo": {"weight": 0.1, "masked": True},
    },
    "masking": {"name": "blocks", "exact": True},
}
GRAM = {"masked": True, "teacher_view": "gram", "weight": 2.0}


def toy_v3(toy, **changes):
    config = toy()
    config["backbone"] = {}
    update(config, V3)
    update(config, changes)
    return config


def plain(folder):
    return [{k: v for k, v in row.items() if k not in TIMINGS} for row in rows(folder / "metrics.jsonl")]


# --- Gram


@pytest.mark.parametrize(
    ("name", "flat", "normalised", "negatives"),
    [
        ("image_level", False, True, "keep"),
        ("batch_level", True, True, "keep"),
        ("unnormalised", False, False, "keep"),
        ("image_level_remove_neg", False, True, "remove"),
        ("image_level_remove_teacher_neg", False, True, "remove-teacher"),
    ],
)
def test_gram_is_the_recorded_one(name, flat, normalised, negatives):
    student, teacher = RECORDED["gram/student"], RECORDED["gram/teacher"]
    if flat:
        student, teacher = student.flatten(0, 1), teacher.flatten(0, 1)
    found = gram_distance(student, teacher, normalised, negatives)
    assert found.item() == pytest.approx(RECORDED[f"gram/{name}"].item(), rel=1e-6)


def test_a_larger_grid_comes_down_to_the_students():
    rows_ = torch.linspace(0, 1, 8).view(8, 1).expand(8, 8).flatten().view(1, 64, 1)
    small = Tokens(None, torch.empty(0), rows_, (1, 8, 8)).patches_on((1, 4, 4)).view(4, 4)
    assert bool((small.diff(dim=0) > 0).all()) and bool((small.diff(dim=1).abs() < 1e-6).all())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"refresh_every": 10}, [10, 20, 30, 40, 50, 60]),
        ({"refresh_every": 10, "refresh_from": 25}, [30, 40, 50, 60]),
        ({"refresh_every": 10, "refresh_from": 30, "refreshes": 2}, [30, 40]),
        ({"refresh_every": 10, "refresh_from": 0, "refreshes": 1}, [10]),
        ({}, []),
    ],
)
def test_when_the_gram_teacher_is_refreshed(options, expected):
    (network,) = plugin.gram_networks(plugin.Gram(**options))
    lengths = {"refresh_every": options.get("refresh_every", 0), "refresh_from": options.get("refresh_from", 0)}
    assert [step for step in range(1, 61) if network.refresh(step, lengths)] == expected


@pytest.fixture
def pretrained(toy):
    """A finished run to start from."""
    return api.run(toy_v3(toy, run={"name": "pretrain"})).folder


@pytest.mark.slow
def test_gram_teacher_is_of_the_run_it_names_and_changes_only_when_refreshed(toy, pretrained):
    saved = load_file(pretrained / "checkpoints" / "4" / "teacher.safetensors")
    settings = {"gram": {"size": 32}}
    frozen = toy_v3(toy, loss={"gram": {**GRAM, "teacher": str(pretrained)}}, augmentation=settings)
    folder = api.run(frozen).folder
    kept = load_file(folder / "checkpoints" / "4" / "gram.safetensors")
    assert all(torch.equal(kept[name], saved[name]) for name in kept) and "backbone.model.embeddings.cls_token" in kept
    update(frozen, {"run": {"name": "refreshed"}, "loss": {"gram": {"refresh_every": 4}}})
    folder = api.run(frozen).folder
    kept, teacher = (load_file(folder / "checkpoints" / "4" / f"{n}.safetensors") for n in ("gram", "teacher"))
    assert all(torch.equal(kept[name], teacher[name]) for name in kept)


@pytest.mark.slow
def test_a_run_with_gram_and_mixed_sizes_resumes_bit_by_bit(toy, pretrained):
    config = toy_v3(
        toy,
        run={"steps": 8, "start": str(pretrained)},
        checkpoint={"every": 3, "keep_last": 9},
        loss={"gram": {**GRAM, "refresh_every": 5}},
        augmentation={
            "gram": {"size": 32},
            "sizes": [{"share": 0.5, "globals": 16}, {"share": 0.5, "globals": 24, "locals": 12, "gram": 40}],
        },
    )
    folder = api.run(config).folder
    whole = plain(folder)
    last = load_file(folder / "checkpoints" / "8" / "student.safetensors")
    for step in ("6", "8"):
        shutil.rmtree(folder / "checkpoints" / step)
    shutil.rmtree(folder / "export")
    api.run(config, resume=True)
    assert plain(folder) == whole and all(row["loss/gram"] > 0 for row in whole[1:])
    again = load_file(folder / "checkpoints" / "8" / "student.safetensors")
    assert all(torch.equal(again[name], last[name]) for name in last)


def test_every_crop_of_a_batch_has_one_size_and_gram_crops_are_of_the_same_places(toy, pretrained):
    sizes = [{"share": 0.5, "globals": 16}, {"share": 0.5, "globals": 24, "locals": 12, "gram": 40}]
    plan = api.plan(
        toy_v3(
            toy,
            loss={"gram": {**GRAM, "teacher": str(pretrained)}},
            augmentation={"gram": {"size": 32}, "sizes": sizes},
        )
    )
    views = {view.name: (view.size.plain, tuple(size.plain for size in view.others)) for view in plan.views}
    assert views == {"global": (24, (16,)), "local": (12, (8,)), "gram": (40, (32,))}
    images, seen = make_images(build(plan)), set()
    for step in range(8):
        batch = collate([images[p] for p in range(step * 8, step * 8 + 8)])
        seen.add(tuple(batch.pixels[view].shape[-1] for view in ("global", "local", "gram")))
        assert torch.equal(batch.boxes["gram"], batch.boxes["global"])
        assert batch.masks["global"].shape[-1] == (batch.pixels["global"].shape[-1] // 4) ** 2
    assert seen == {(16, 8, 32), (24, 12, 40)}


def test_gram_crops_are_undistorted_unless_asked(toy):
    def crops(**gram):
        config = toy_v3(toy, augmentation={"gram": {"size": 16, **gram}, "globals": {"brightness": 0.9, "jitter": 1.0}})
        return collate([make_images(build(api.plan(config)))[0]]).pixels

    assert torch.equal(crops(distorted=True)["gram"], crops()["global"])
    assert not torch.equal(crops()["gram"], crops()["global"])
    assert torch.equal(
        crops()["global"],
        collate(
            [make_images(build(api.plan(toy_v3(toy, augmentation={"globals": {"brightness": 0.9, "jitter": 1.0}}))))[0]]
        ).pixels["global"],
    )


@pytest.mark.slow
def test_other_ways_of_gram_train(toy, pretrained):
    for number, options in enumerate(
        (
            {"teacher": "ema", "teacher_view": "global"},
            {"level": "batch", "tokens": "unmasked"},
            {"level": "batch", "tokens": "masked", "negatives": "remove"},
            {"normalised": False, "antialias": True, "negatives": "remove-teacher"},
        )
    ):
        gram = {**GRAM, "teacher": str(pretrained), **options}
        view = {"gram": {"size": 32}} if gram["teacher_view"] == "gram" else {}
        config = toy_v3(toy, run={"name": f"g{number}", "steps": 2}, loss={"gram": gram}, augmentation=view)
        assert rows(api.run(config).folder / "metrics.jsonl")[-1]["loss/gram"] > 0


# --- stages


def stages(**last):
    return [
        {"name": "pretrain"},
        {
            "name": "gram",
            "run": {"steps": 3},
            "loss": {"gram": {**GRAM, "teacher": "start"}},
            "augmentation": {"gram": {"size": 32}},
        },
        {
            "name": "high-resolution",
            "run": {"steps": 2},
            "augmentation": {"globals": {"size": 24}},
            "optimizer": {"lr": 1e-4},
            **last,
        },
    ]


@pytest.mark.slow
def test_three_stages_each_start_from_the_one_before(toy, tmp_path):
    config = toy_v3(toy, stage=stages(), evaluate=KNN)
    result = api.run(config)
    root = tmp_path / "runs" / "run"
    assert result.folder == root / "high-resolution"
    assert sorted(path.name for path in root.iterdir()) == ["gram", "high-resolution", "pretrain"]
    end = load_file(root / "pretrain" / "checkpoints" / "4" / "teacher.safetensors")
    gram = load_file(root / "gram" / "checkpoints" / "3" / "gram.safetensors")
    assert all(torch.equal(gram[name], end[name]) for name in gram)  # the teacher as the stage began
    evaluations = rows(root / "pretrain" / "evaluations.jsonl"), rows(root / "gram" / "evaluations.jsonl")
    assert evaluations[0][-1]["knn/accuracy@5"] == evaluations[1][0]["knn/accuracy@5"]
    about = json.loads((root / "gram" / "export" / "dinomx.json").read_text())
    assert "tensors of the student loaded" in about["start"]["report"] and "fresh" not in about["start"]["report"]


@pytest.mark.slow
def test_stages_see_other_crops_and_the_next_is_resumed_where_the_run_was_cut(toy, tmp_path):
    config = toy_v3(toy, stage=stages())
    whole = api.run(config).folder.parent
    first, second = plain(whole / "pretrain"), plain(whole / "gram")
    assert first[0]["loss/dino"] != second[0]["loss/dino"]
    shutil.rmtree(whole / "high-resolution")
    for folder in ("checkpoints/3", "export"):
        shutil.rmtree(whole / "gram" / folder)
    api.run(config, resume=True)
    assert plain(whole / "gram") == second and (whole / "high-resolution" / "export" / "config.json").exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"head": {"ibot": {"prototypes": 48}}}, 'head.ibot.prototypes: 48 prototypes, but the stage "gram" has 24'),
        ({"backbone": {"patch_size": 8}}, 'backbone.patch_size: the patch is 8, but the stage "gram" has 4'),
        ({"backbone": {"width": 32}}, 'backbone.width: the width is 32, but the stage "gram" has 16'),
    ],
)
def test_stages_that_do_not_fit_are_refused_before_the_first_starts(toy, tmp_path, change, expected):
    with pytest.raises(ConfigError) as caught:
        api.run(toy_v3(toy, stage=stages(**change)))
    assert expected in str(caught.value) and "(stage high-resolution)" in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ([{"run": {"steps": 3}}], "stage.name: expected a name of letters, digits"),
        ([{"name": "a"}, {"name": "a"}], 'stage.name: two stages are called "a"'),
        ([{"name": "export"}], "stage.name: expected a name of letters, digits"),
        ([{"name": "a/b"}], "stage.name: expected a name of letters, digits"),
        ("a", "stage: expected one or more tables [[stage]], each with a name"),
        ([{"name": "a", "recipe": "dinov3"}], "stage.recipe: a recipe is named outside of the stages"),
        (
            [{"name": "a", "loss": {"gram": {}}}],
            'loss.gram.teacher: the network "gram" is the teacher as the run starts',
        ),
    ],
)
def test_broken_stages_are_refused(toy, stage, expected):
    with pytest.raises(ConfigError) as caught:
        api.plans(toy_v3(toy, stage=stage))
    assert expected in str(caught.value)


def test_a_stage_has_no_start_of_its_own_and_follows_only_a_stage_that_can_be_planned(toy):
    second = {"name": "b", "run": {"start": "/nope"}}
    with pytest.raises(
        ConfigError, match='run.start: "/nope", but a stage starts from the one before it; leave it out'
    ):
        api.plans(toy_v3(toy, stage=[{"name": "a"}, second]))
    broken = [
        {"name": "a", "run": {"batch_size": 99999}},
        {"name": "b", "loss": {"gram": {}}, "optimizer": {"clip": -1.0}},
    ]
    with pytest.raises(ConfigError) as caught:
        api.plans(toy_v3(toy, stage=broken))
    assert sorted(problem.key for problem in caught.value.problems) == ["optimizer.clip", "run.batch_size"]


def test_what_targets_keep_goes_on_in_the_next_stage(toy, tmp_path):
    target = {"dino": {"target": {"name": "centering"}}, "ibot": {"target": {"name": "centering"}}}
    config = toy_v3(toy, loss=target, stage=[{"name": "a"}, {"name": "b"}])
    plans = api.plans(config)
    api.run(plans[0])
    saved = load_file(tmp_path / "runs" / "run" / "a" / "checkpoints" / "4" / "losses.safetensors")
    parts = build(plans[1])
    assert float(saved["dino.target.center"].norm()) > 0
    assert torch.equal(parts.losses["dino"].target.center, saved["dino.target.center"])


def test_a_broken_checkpoint_is_no_start(toy, pretrained):
    place = pretrained / "checkpoints" / "4" / "student.safetensors"
    place.write_bytes(place.read_bytes()[:-100])
    plan = api.plan(toy_v3(toy, run={"name": "next", "start": str(pretrained)}))
    assert [w for w in plan.warnings if "checkpoints/4 is left out" in w]
    assert "loaded from step 3" in build(plan).start.report
    with pytest.raises(
        ConfigError, match="run.start: .*checkpoints/4: student.safetensors has .* choose another checkpoint"
    ):
        api.plan(toy_v3(toy, run={"name": "next", "start": str(place.parent)}))


def test_a_mistake_in_a_stage_has_its_line(tmp_path):
    (tmp_path / "c.toml").write_text(
        'recipe = "dinov3-small"\n[data]\nname = "digits"\n[augmentation]\nmean = [0.3]\nstd = [0.3]\n[[stage]]\nname = "a"\n'
        '[[stage]]\nname = "b"\n[stage.optimizer]\nlr = 1e-4\nclip = -1\n[stage.loss.dino]\nmaskd = true\n'
    )
    with pytest.raises(ConfigError) as caught:
        api.plans(tmp_path / "c.toml")
    assert [str(problem).removeprefix(f"{tmp_path}/") for problem in caught.value.problems] == [
        "c.toml:13: optimizer.clip: must be 0 or more, got -1.0 (stage b)",
        'c.toml:15: loss.dino.maskd: unknown key; did you mean "masked"? (stage b)',
    ]


def test_stages_are_written_in_the_file_under_their_name(toy):
    with pytest.raises(ConfigError, match='stages: unknown key; did you mean "stage"?'):
        api.plans(toy_v3(toy, stages=[{"name": "a"}]))
    with pytest.raises(ConfigError, match="--set: stage: stages cannot be set from the command line"):
        api.plans(toy_v3(toy), overrides=['stage=[{name="a"}]'])


def test_one_plan_cannot_stand_for_several_stages(toy):
    with pytest.raises(ConfigError, match="has the stages pretrain, gram, high-resolution, each with a plan"):
        api.plan(toy_v3(toy, stage=stages()))


# --- starting from another run


def test_a_run_starts_from_another_and_says_which_heads_are_fresh(toy, pretrained):
    config = toy_v3(toy, run={"name": "next", "start": str(pretrained)}, evaluate=KNN, loss={"dino": {"head": "other"}})
    config["head"]["other"] = config["head"].pop("dino")
    parts = build(api.plan(config))
    assert parts.start.report.endswith("fresh: head.other")
    saved = load_file(pretrained / "checkpoints" / "4" / "student.safetensors")
    ours = parts.student.state_dict()
    assert all(torch.equal(ours[name], saved[name]) for name in ours if not name.startswith("heads.other"))
    teacher = load_file(pretrained / "checkpoints" / "4" / "teacher.safetensors")
    theirs = parts.teacher.network.state_dict()
    assert all(torch.equal(theirs[name], teacher[name]) for name in theirs if not name.startswith("heads.other"))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"run": {"start": "nowhere"}},
            "run.start: nowhere: is neither a run with checkpoints nor a checkpoint of one",
        ),
        ({"backbone": {"width": 32}}, "backbone.width: the width is 32, but "),
        ({"backbone": {"mlp_ratio": 2.0}}, "the position grid, the MLP or the biases differ"),
        ({"head": {"dino": {"prototypes": 64}}}, "head.dino.prototypes: 64 prototypes, but "),
        ({"head": {"dino": {"hidden": 24}}}, "head.dino: "),
        ({"loss": {"gram": {"teacher": "nowhere"}}}, 'loss.gram.teacher: there is no folder or file "nowhere"'),
    ],
)
def test_starts_that_do_not_fit_are_refused(toy, pretrained, change, expected):
    with pytest.raises(ConfigError) as caught:
        api.plan(toy_v3(toy, **{"run": {"start": str(pretrained)}, **change}))
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("options", "augmentation", "expected"),
    [
        ({}, {}, "loss.gram.teacher: the network \"gram\" is the teacher as the run starts, and this run starts from random weights"),
        ({"teacher": "ema", "teacher_view": "gram"}, {}, 'loss.gram: needs the view "gram"'),
        ({"teacher": "ema", "tokens": "masked"}, {}, 'loss.gram.level: images have different numbers of masked patches'),
        ({"teacher": "ema", "teacher_view": "local"}, {"locals": {"count": 3}}, 'loss.gram.teacher_view: "local" crops lie at other places than "global" crops'),
        ({"teacher": ""}, {}, "loss.gram.teacher: is empty; name"),
        ({"teacher": "ema", "student_view": "local"}, {}, 'loss.gram.teacher_view: "global" crops lie at other places than "local" crops'),
        ({"teacher": "ema", "teacher_view": "gram"}, {"gram": {"size": [16, 32]}}, "loss.gram.teacher_view: crops of 16 x 32 px have another shape"),
        ({"teacher": "ema", "refreshes": 2}, {}, "loss.gram.refresh_every: is 0, so the Gram teacher is never refreshed"),
        ({"teacher": "ema", "refresh_every": 5}, {}, "loss.gram.refresh_every: the teacher itself needs no refreshing"),
        ({"teacher": "ema"}, {"sizes": [{"share": 1.0, "globals": 18}]}, "augmentation.sizes: global crops of 18 px are not a multiple"),
        ({"teacher": "ema"}, {"sizes": [{"share": 1.0, "globals": 16, "gram": 32}]}, "augmentation.sizes: give gram a size, but there is no table"),
    ],
)  # fmt: skip
def test_what_gram_cannot_do_is_refused(toy, options, augmentation, expected):
    with pytest.raises(ConfigError) as caught:
        api.plan(toy_v3(toy, loss={"gram": options}, augmentation=augmentation))
    assert expected in str(caught.value)


def test_a_gram_teacher_of_another_width_or_patch_is_refused(toy, model_folder):
    for change, expected in (({"width": 16}, "the patch is 4"), ({"patch_size": 4}, "the width is 16")):
        folder = model_folder(
            "dinov3_vit", name=f"m{expected[-2:]}", channels=1, heads=2, depth=2, image_size=16, **change
        )
        with pytest.raises(ConfigError) as caught:
            api.plan(toy_v3(toy, backbone={"width": 16, "patch_size": 4}, loss={"gram": {"teacher": str(folder)}}))
        assert "loss.gram.teacher" in str(caught.value) and (
            "width" in str(caught.value) or "patch" in str(caught.value)
        )


# --- backbone and head


def test_backbone_options_survive(toy):
    options = {
        "registers": 2,
        "mlp_ratio": 2.0,
        "swiglu": True,
        "layer_scale": 0.3,
        "rope_base": 50.0,
        "rope_jitter": 1.5,
    }
    config = toy_v3(toy, backbone={**options, "patch_size": 8, "rope_shift": 0.1, "layer_norm_eps": 1e-6})
    plan = api.plan(config)
    backbone = build(plan).student.backbone
    c = backbone.model.config
    assert (c.patch_size, c.num_channels, c.num_register_tokens, c.intermediate_size) == (8, 1, 2, 32)
    assert (c.use_gated_mlp, c.layerscale_value, c.rope_theta, c.layer_norm_eps) == (True, 0.3, 50.0, 1e-6)
    assert (c.pos_embed_shift, c.pos_embed_jitter, c.pos_embed_rescale, c.key_bias) == (0.1, 1.5, 2.0, False)
    assert sum(p.numel() for p in backbone.parameters()) == plan.backbone.parameters
    tokens = backbone.eval()(torch.rand(2, 1, 24, 40))
    assert tokens.grid == (1, 3, 5) and tokens.registers.shape == (2, 2, 16)


@pytest.mark.parametrize(("width", "heads"), [(24, 4), (12, 4)])
def test_head_widths_that_rotary_positions_cannot_turn_are_refused(toy, width, heads):
    with pytest.raises(
        ConfigError,
        match=f"backbone.heads: {heads} heads of {width // heads} features; rotary positions need a multiple of 4",
    ):
        api.plan(toy_v3(toy, backbone={"width": width, "heads": heads}))


def test_beside_weights_only_training_options_are_taken(toy, model_folder):
    weights = model_folder("dinov3_vit", channels=1, heads=2, depth=2, width=16, patch_size=4, image_size=16)
    config = toy_v3(toy)
    config["backbone"] = {"name": "dinov3-vit", "weights": str(weights), "rope_shift": 0.3, "rope_rescale": 1.0}
    c = build(api.plan(config)).student.backbone.model.config
    assert (c.pos_embed_shift, c.pos_embed_rescale) == (0.3, None)
    config["backbone"]["layer_scale"] = 0.5
    with pytest.raises(
        ConfigError, match="backbone.layer_scale: is for a model from scratch; the weights bring their own"
    ):
        api.plan(config)
    other = model_folder("dinov2", name="v2", channels=1, heads=2, depth=2, width=16, patch_size=4, image_size=16)
    config["backbone"] = {"name": "dinov3-vit", "weights": str(other)}
    with pytest.raises(ConfigError, match='holds a model of type "dinov2", not "dinov3_vit"; take another backbone'):
        api.plan(config)


def test_the_hf_backbone_takes_a_gram_teacher_from_a_folder(toy, model_folder):
    sizes = {"heads": 2, "depth": 2, "width": 16, "patch_size": 4}
    weights = model_folder("dinov2", name="v2", channels=1, image_size=16, mask_token=True, **sizes)
    config = toy_v3(toy, loss={"gram": {"teacher": str(weights)}})
    config["backbone"] = {"name": "hf", "family": "dinov2", "mask_token": True, "config": {"qkv_bias": True}, **sizes}
    parts = build(api.plan(config))
    saved = load_file(weights / "model.safetensors")
    assert torch.equal(parts.further["gram"].backbone.model.embeddings.cls_token, saved["embeddings.cls_token"])


def test_rope_is_jittered_in_training_only(toy):
    backbone = build(api.plan(toy_v3(toy))).student.backbone
    pixels = torch.rand(2, 1, 16, 16)
    assert not torch.equal(backbone(pixels).patches, backbone(pixels).patches)
    backbone.eval()
    assert torch.equal(backbone(pixels).patches, backbone(pixels).patches)


def test_the_head_counts_its_parameters_and_has_a_plain_last_layer():
    options = plugin.Dinov3Head(prototypes=32, hidden=16, bottleneck=8)
    head = Dinov3Head(options, 24)
    assert sum(p.numel() for p in head.parameters()) == plugin.head_shape(options, 24).parameters
    assert [name for name, _ in head.last_layer.named_parameters()] == ["weight"]
    assert head(torch.randn(3, 24)).shape == (3, 32)


@pytest.mark.parametrize("recipe", ["dinov3", "dinov3-stages", "dinov3-small"])
def test_recipes_plan(recipe, image_folder):
    data = {"name": "image-folder", "path": str(image_folder)}
    plans = api.plans({"recipe": recipe, "run": {"batch_size": 4, "device": "cpu"}, "data": data})
    assert [plan.stage for plan in plans] == (["pretrain", "gram", "high-resolution"] if "stages" in recipe else [""])


def ends(plan):
    """First and last value of every curve that is not 1 throughout."""
    found = {key: (curve.at(0), curve.at(plan.steps - 1)) for key, curve in plan.curves.items()}
    return {key: pair for key, pair in found.items() if pair != (1.0, 1.0)}


def test_published_schedules_are_constant_after_their_warm_ups(image_folder):
    data = {"name": "image-folder", "path": str(image_folder)}
    # a batch of 4 of 4,096 images scales the learning rate by the root
    pretrain, gram, high = map(
        ends, api.plans({"recipe": "dinov3-stages", "run": {"batch_size": 4, "device": "cpu"}, "data": data})
    )
    shared = {
        "optimizer.weight_decay": (0.04, 0.04),
        "teacher.momentum": (0.994, 0.994),
        "loss.koleo.weight": (0.1, 0.1),
    }
    warm, hot = (0.04, 0.07), (0.07, 0.07)
    lr = pytest.approx(4e-4 / 32)
    assert pretrain == {
        **shared,
        "loss.dino.teacher_temperature": warm,
        "loss.ibot.teacher_temperature": warm,
        "optimizer.lr": (0.0, lr),
    }
    later = {**shared, "loss.dino.teacher_temperature": hot, "loss.ibot.teacher_temperature": hot}
    assert gram == {
        **later,
        "optimizer.lr": (0.0, lr),
        "loss.dino.local_weight": (1.0, 0.5),
        "loss.gram.weight": (0.0, 2.0),
    }
    assert high == {
        **later,
        "optimizer.lr": (0.0, 1.25e-5),
        "loss.dino.local_weight": (0.5, 0.5),
        "loss.gram.weight": (1.5, 1.5),
    }


def test_continuing_keeps_gram_to_the_starting_weights(image_folder, model_folder):
    weights = model_folder("dinov3_vit", patch_size=16, image_size=64, heads=2)
    config = {
        "recipe": "dinov3-continue",
        "run": {"batch_size": 4, "device": "cpu"},
        "backbone": {"weights": str(weights)},
    }
    config["data"] = {"name": "image-folder", "path": str(image_folder)}
    config["head"] = {name: {"prototypes": 32, "hidden": 16, "bottleneck": 8} for name in ("dino", "ibot")}
    parts = build(api.plan(config))
    gram, student = parts.further["gram"].state_dict(), parts.student.state_dict()
    assert all(torch.equal(gram[name], student[name]) for name in gram)
    assert "head.dino: fresh, the weights have none" in parts.start.report
