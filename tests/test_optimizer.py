"""Parameter groups, clipping and the frozen last layer."""

import pytest
import torch

from dinomx_core import TrainingError, api
from dinomx_core.training.build import build
from dinomx_core.training.optimizer import parameter_groups


def built(toy, **changes):
    return build(api.plan(toy(**changes)))


def fill_gradients(parts, value=1.0):
    for parameter in parts.student.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.full_like(parameter, value)


def group_of(parts, name):
    parameter = dict(parts.student.named_parameters())[name]
    return next(g for g in parts.optimizer.adamw.param_groups if any(p is parameter for p in g["params"]))


def test_groups_have_layer_decay_patch_factor_and_undecayed_biases(toy):
    parts = built(toy, optimizer={"layer_decay": 0.5, "patch_embed_lr": 0.2})
    expected = {
        "backbone.model.embeddings.cls_token": (0.125, True, False),
        "backbone.model.embeddings.patch_embeddings.projection.weight": (0.125 * 0.2, True, False),
        "backbone.model.embeddings.patch_embeddings.projection.bias": (0.125 * 0.2, False, False),
        "backbone.model.layers.0.mlp.fc1.weight": (0.25, True, False),
        "backbone.model.layers.1.layernorm_before.weight": (0.5, False, False),
        "backbone.model.layernorm.bias": (1.0, False, False),
        "heads.dino.mlp.0.weight": (1.0, True, False),
        "heads.dino.last_layer.weight_v": (1.0, True, True),
    }
    for name, (factor, decayed, last) in expected.items():
        group = group_of(parts, name)
        assert (group["lr_factor"], group["decayed"], group["last_layer"]) == (pytest.approx(factor), decayed, last), (
            name
        )
    counted = sum(len(g["params"]) for g in parameter_groups(parts.student, parts.losses, parts.plan.spec.optimizer))
    assert counted == sum(p.requires_grad for p in parts.student.parameters())


@pytest.mark.parametrize("scope", ["tensor", "network", "global"])
def test_clipping_by_scope(toy, scope):
    parts = built(toy, optimizer={"clip": 0.5, "clip_scope": scope})
    fill_gradients(parts)
    parts.optimizer._clip()
    norm = lambda tensors: torch.stack([t.norm() for t in tensors]).norm().item()  # noqa: E731
    grads = {name: p.grad for name, p in parts.student.named_parameters() if p.grad is not None}
    backbone, head = ([g for n, g in grads.items() if n.startswith(part)] for part in ("backbone", "heads"))
    if scope == "global":
        assert norm(grads.values()) == pytest.approx(0.5, rel=1e-4)
    elif scope == "network":
        assert norm(backbone) == pytest.approx(0.5, rel=1e-4) and norm(head) == pytest.approx(0.5, rel=1e-4)
    else:
        attention = "backbone.model.layers.0.attention."
        assert norm([grads[f"{attention}{letter}_proj.weight"] for letter in "qkv"]) == pytest.approx(0.5, rel=1e-4)
        assert grads[f"{attention}o_proj.weight"].norm().item() == pytest.approx(0.5, rel=1e-4)
        assert grads["backbone.model.embeddings.cls_token"].norm().item() == pytest.approx(0.5, rel=1e-4)


def test_gradients_below_the_limit_are_left_alone(toy):
    parts = built(toy, optimizer={"clip": 1e6})
    fill_gradients(parts)
    parts.optimizer._clip()
    assert all(bool((p.grad == 1).all()) for p in parts.student.parameters() if p.grad is not None)


@pytest.mark.parametrize("how", ["gradient", "lr"])
def test_the_last_layer_stands_still_while_it_is_frozen(toy, how):
    parts = built(toy, optimizer={"freeze_last_layer": 1, "freeze_last_layer_by": how})
    weight = parts.student.heads["dino"].last_layer.weight_v
    before = weight.detach().clone()
    fill_gradients(parts)
    parts.optimizer.step(0, 0.1, 0.1)
    assert torch.equal(weight, before)
    assert (weight in parts.optimizer.adamw.state) == (how == "lr")  # only with lr 0 do its moments move
    fill_gradients(parts)
    parts.optimizer.step(1, 0.1, 0.1)
    assert not torch.equal(weight, before)


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(toy):
    parts = built(toy)
    fill_gradients(parts, float("nan"))
    before = {name: p.detach().clone() for name, p in parts.student.named_parameters()}
    with pytest.raises(TrainingError, match="step 0: the gradient is not finite"):
        parts.optimizer.step(0, 0.1, 0.1)
    assert all(torch.equal(p, before[name]) for name, p in parts.student.named_parameters())


def test_the_teacher_starts_equal_is_frozen_and_follows(toy):
    parts = built(toy)
    student, teacher = dict(parts.student.named_parameters()), dict(parts.teacher.network.named_parameters())
    assert student.keys() == teacher.keys()
    assert all(torch.equal(student[n], teacher[n]) for n in student)
    assert not any(p.requires_grad for p in teacher.values()) and not parts.teacher.network.training
    with torch.no_grad():
        for parameter in student.values():
            parameter.add_(1.0)
    before = {name: p.clone() for name, p in teacher.items()}
    parts.strategies["teacher"].after_step(parts.teacher, {"momentum": 0.75})
    for name, parameter in teacher.items():
        torch.testing.assert_close(parameter, 0.75 * before[name] + 0.25 * student[name].detach())
