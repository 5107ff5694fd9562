"""Distillation: the teacher is another model, never changed; what is exported is an average of the student."""

import signal

import pytest
import torch
import transformers
from safetensors.torch import load_file

from dinomx_core import api
from dinomx_core.errors import ConfigError, Stopped
from dinomx_core.training.build import build
from dinomx_core.training.checkpoint import digest
from dinomx_core.training.flow import Views
from dinomx_distill import plugin
from dinomx_distill.features import distance
from tests.fixtures import rows, steps
from tests.test_resume import StopAt, assert_a_cut_changes_nothing, assert_same


def learns_from(toy, teacher, **changes):
    """A toy run of 48 px that learns from features alone."""
    config = toy(**changes)
    config["loss"] = {"distill-features": {"teacher": str(teacher)}}
    config.pop("head")
    config["augmentation"].pop("locals")
    config["augmentation"]["globals"]["size"] = 48
    config["run"].setdefault("name", "run")
    return config


@pytest.mark.parametrize("family", ["dinov2_with_registers", "siglip_vision_model"])
def test_any_model_is_learnt_from_whatever_its_width_grid_and_statistics(toy, model_folder, family):
    folder = model_folder(family, channels=1, image_size=48, patch_size=6, width=48)
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5], "image_std": [0.25]}')
    parts = build(api.plan(learns_from(toy, folder)))
    (name,) = parts.further
    assert parts.further[name].backbone.width == 48
    before = digest(parts.further[name].state_dict(), parts.parallelism)
    found = steps(parts, 4)
    assert digest(parts.further[name].state_dict(), parts.parallelism) == before
    assert all(row["distill-features/cls"] > 0 and row["distill-features/patches"] > 0 for row in found)
    assert parts.losses["distill-features"].projectors["patches"].weight.shape == (48, 16)

    pixels = torch.randn(1, 2, 1, 48, 48)
    request = plugin.features_requests(parts.plan.spec.losses["distill-features"].options)[1]
    tokens = parts.further[name]([request], Views({"global": pixels}))[request]
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    model = getattr(model, "vision_model", model)
    with torch.no_grad():  # pixels over 0..1, as the teacher's own preprocessing has them
        wanted = model(
            (pixels[0] * 0.35 + 0.3 - 0.5) / 0.25, **({} if "dinov2" in family else {"interpolate_pos_encoding": True})
        )
    last = wanted.last_hidden_state[:, -64:]
    assert (tokens.patches - last).abs().max() < 1e-4 * last.abs().max()


def test_grey_images_are_shown_to_a_colour_model_as_colour(toy, model_folder):
    folder = model_folder("dinov2", image_size=48, patch_size=6)
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}')
    parts = build(api.plan(learns_from(toy, folder)))
    (teacher,) = parts.further.values()
    steps(parts, 1)
    pixels = torch.randn(1, 2, 1, 48, 48)
    request = plugin.features_requests(parts.plan.spec.losses["distill-features"].options)[1]
    tokens = teacher([request], Views({"global": pixels}))[request]
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    with torch.no_grad():
        wanted = teacher.backbone(((pixels[0] * 0.35 + 0.3) - mean) / std)
    assert torch.allclose(tokens.patches, wanted.patches, atol=1e-4)


def test_the_distance_falls_and_the_student_alone_is_exported(toy, model_folder):
    config = learns_from(
        toy, model_folder("dinov2", channels=1, image_size=48), run={"steps": 40}, optimizer={"lr": 3e-3}
    )
    result = api.run(config)
    found = rows(result.folder / "metrics.jsonl")
    assert found[-1]["loss"] < 0.7 * found[0]["loss"]
    assert transformers.AutoModel.from_pretrained(result.export).config.hidden_size == 16
    names = {file.name for file in (result.folder / "checkpoints" / "40").glob("*.safetensors")}
    assert names == {"student.safetensors", "teacher.safetensors", "losses.safetensors", "optimizer.safetensors"}


def test_distances_by_hand():
    student, teacher = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 3.0], [0.0, 1.0]])
    assert float(distance(student, teacher, "cosine")) == pytest.approx(0.5)
    assert float(distance(student, teacher, "mse")) == pytest.approx((4 + 1 + 1 + 1) / 4, rel=1e-4)
    assert float(distance(student, teacher, "smooth-l1")) == pytest.approx((1.5 + 0.5 + 0.5 + 0.5) / 4, rel=1e-4)


V2 = {
    "recipe": "dinov2-small", "data": {"name": "digits"}, "loader": {"workers": 0},
    "backbone": {"width": 48, "depth": 2, "heads": 2, "patch_size": 4},
    "augmentation": {"mean": [0.3], "std": [0.35], "globals": {"size": 16}, "locals": {"size": 8}},
}  # fmt: skip


def v2(tmp_path, name, **changes):
    config = {
        **V2,
        "run": {"steps": 3, "batch_size": 8, "device": "cpu", "threads": 1, "out": str(tmp_path), "name": name},
    }
    config.update(changes)
    return config


def narrow(tmp_path, teacher, name="narrow", **changes):
    backbone = {**V2["backbone"], "width": 24}
    loss = {"ibot": {"masked": False}, "dino": {"masked": False}, "koleo": {"masked": False}}
    tables = {"strategies": ["distill-heads"], "strategy": {"distill-heads": {"teacher": str(teacher)}}}
    return v2(tmp_path, name, **{**tables, "backbone": backbone, "loss": loss, **changes})


def test_a_checkpoint_with_heads_takes_the_teachers_place(tmp_path):
    teacher = api.run(v2(tmp_path, "teacher")).folder
    config = narrow(tmp_path, teacher)
    parts = build(api.plan(config))
    network, saved = parts.further["teacher"], load_file(teacher / "checkpoints" / "3" / "teacher.safetensors")
    assert set(saved) == set(network.state_dict())
    assert all(torch.equal(tensor, saved[name]) for name, tensor in network.state_dict().items())
    assert parts.objective.networks["teacher"] is network
    assert parts.objective.watched == "student"
    before = digest(network.state_dict(), parts.parallelism)
    steps(parts, 2)
    assert digest(network.state_dict(), parts.parallelism) == before
    assert parts.teacher.network.backbone.width == 24  # the average, which is exported
    result = api.run(config)
    assert transformers.AutoModel.from_pretrained(result.export).config.hidden_size == 24
    row = rows(result.folder / "metrics.jsonl")[0]
    assert row["loss/dino"] > 0
    assert row["loss/ibot"] > 0


@pytest.mark.parametrize("first", [{"lora": {"rank": 2}}, {"freeze": {"blocks": 1}}])
def test_it_goes_with_adapters_and_frozen_blocks(toy, tmp_path, model_folder, first):
    (label,) = first
    teacher = api.run(v2(tmp_path, "teacher")).folder
    both = {"strategies": [label, "distill-heads"], "strategy": {**first, "distill-heads": {"teacher": str(teacher)}}}
    assert api.run(narrow(tmp_path, teacher, label, **both)).figures == {}
    features = learns_from(toy, model_folder("dinov2", channels=1), strategies=[label], strategy=first)
    assert rows(api.run(features).folder / "metrics.jsonl")[-1]["gradient_norm"] > 0


@pytest.mark.slow
def test_resume_is_bit_identical_and_needs_the_same_teacher(toy, model_folder):
    folder = model_folder("dinov2", channels=1)
    config = learns_from(toy, folder, run={"steps": 8, "name": "whole"})
    config["checkpoint"] = {"every": 3}
    whole = api.run(config).folder
    config["run"]["name"] = "cut"
    with pytest.raises(Stopped):
        api.run(config, progress=StopAt(4, signal.SIGTERM))
    good = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(good[:-4] + bytes(4))
    with pytest.raises(Exception, match=r"the network \"distill-.*\" is not what the run began with"):
        api.run(config, resume=True)
    (folder / "model.safetensors").write_bytes(good)
    assert_same(whole, api.run(config, resume=True).folder)


def refused(config):
    with pytest.raises(ConfigError) as caught:
        api.plan(config)
    return str(caught.value).replace("config: ", "")


def test_what_cannot_be_learnt_from_is_refused(toy, tmp_path, model_folder):
    text = refused(learns_from(toy, tmp_path / "nowhere"))
    assert f'loss.distill-features.teacher: there is no folder or file "{tmp_path / "nowhere"}"' in text
    text = refused(learns_from(toy, model_folder("dinov2", channels=1, patch_size=10, image_size=40)))
    assert (
        "loss.distill-features.teacher: its patches of 10 px do not fill the global crops of 48 px, so its grid cannot be aligned with "
        "the student's; use crops that are multiples of 20"
    ) in text
    assert "made for 4 channels, the data have 1; take a model that was made for them, or for RGB where" in refused(
        learns_from(toy, model_folder("dinov2", name="four", channels=4))
    )
    assert "loss.distill-features.teacher: is empty; name a run" in refused(learns_from(toy, ""))
    config = learns_from(toy, model_folder("dinov2", channels=1, name="grey"))
    config["loss"]["distill-features"].update(cls=0, patches=0)
    assert "loss.distill-features.cls: and patches are both 0, so nothing is compared; raise one" in refused(config)


def test_heads_that_do_not_fit_are_refused(toy, tmp_path, model_folder):
    teacher = api.run(v2(tmp_path, "teacher")).folder
    config = narrow(tmp_path, teacher, head={"dino": {"prototypes": 64}, "ibot": {"name": "ibot", "hidden": 16}})
    text = refused(config)
    assert f"head.dino.prototypes: 64 prototypes, but {teacher / 'checkpoints' / '3'} has" in text
    assert "head.ibot: " in text
    assert "export: is an export, which has no heads; name the run" in refused(narrow(tmp_path, teacher / "export"))
    (warning,) = api.plan(narrow(tmp_path, teacher, loss={})).warnings
    assert warning.startswith("strategy.distill-heads.teacher: the student sees masked crops")
    text = refused(narrow(tmp_path, model_folder("dinov2", channels=1, patch_size=4)))
    assert 'strategy.distill-heads.teacher: has no head "dino", which loss.dino needs (its heads: none)' in text
    text = refused(narrow(tmp_path, teacher, backbone={**V2["backbone"], "width": 24, "patch_size": 8}))
    assert "masked patches one by one; take a teacher of the same patch, or a loss without masks" in text
    alone = learns_from(toy, model_folder("dinov2", channels=1), strategies=["distill-heads"],
                        strategy={"distill-heads": {"teacher": str(teacher)}})  # fmt: skip
    assert 'strategy.distill-heads: brings the network "teacher", which no loss asks for; leave it out' in refused(
        alone
    )
    twice = narrow(tmp_path, teacher, strategies=["distill-heads", "b"])
    twice["strategy"]["b"] = {"name": "distill-heads", "teacher": str(tmp_path)}
    assert "a run learns from one teacher" in refused(twice)


@pytest.mark.slow
@pytest.mark.parametrize("first", [{}, {"lora": {"rank": 2}}])
def test_a_cut_of_distillation_from_heads_changes_nothing(tmp_path, first):
    teacher = api.run(v2(tmp_path, "teacher")).folder
    tables = {
        "strategies": [*first, "distill-heads"],
        "strategy": {**first, "distill-heads": {"teacher": str(teacher)}},
    }
    config = narrow(tmp_path, teacher, **tables)
    config["run"]["steps"] = 8
    assert_a_cut_changes_nothing(config)


@pytest.mark.slow
def test_the_recipe_distils_a_run_of_dinov2(tmp_path, image_folder):
    small = {
        "run": {"batch_size": 4, "steps": 2, "device": "cpu", "precision": "float32", "out": str(tmp_path)},
        "loader": {"workers": 0},
        "data": {"name": "image-folder", "path": str(image_folder)},
        "head": {"dino": {"prototypes": 32, "hidden": 16, "bottleneck": 8}},
        "augmentation": {"globals": {"size": 64}, "locals": {"size": 32, "count": 2}},
        "optimizer": {"lr": {"warmup": 0}},
        "loss": {label: {"teacher_temperature": {"warmup": 0}} for label in ("dino", "ibot")},
    }
    sizes = {"width": 32, "depth": 2, "heads": 2}
    teacher = api.run({**small, "recipe": "dinov2", "backbone": sizes, "run": {**small["run"], "name": "teacher"}})
    config = {
        **small, "recipe": "dinov2-distill", "backbone": {**sizes, "width": 16},
        "strategy": {"distill-heads": {"teacher": str(teacher.folder)}},
    }  # fmt: skip
    plan = api.plan(config)
    assert {request.masking for request in plan.requests} == {"none"}
    assert not plan.warnings
    run = api.run(config)
    assert transformers.AutoModel.from_pretrained(run.export).config.hidden_size == 16
