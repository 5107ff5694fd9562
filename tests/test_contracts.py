"""What the contracts have room for beyond DINO."""

import pytest
import torch

from dinomx_core import ConfigError, PluginError, Request, api
from dinomx_core.training.build import build
from dinomx_core.training.contracts import Loss, LossResult
from dinomx_core.training.flow import Hidden, drop_masked
from dinomx_core.training.network import computed
from tests import toy_objectives
from tests.fixtures import rows

CROPS = {"size": 16, "area": [0.5, 1.0]}


def masked(count):
    return {"name": "masked", "mean": [0.3], "std": [0.3], "locals": None, "globals": {**CROPS, "count": count}}


@pytest.mark.parametrize("count", [1, 3])
def test_dropped_tokens_pixel_targets_and_any_number_of_global_views(toy, count):
    config = toy(
        run={"steps": 20}, augmentation=masked(count), loss={"dino": None, "pixels": {}}, optimizer={"lr": 3e-2}
    )
    result = api.run(config, plugins=[toy_objectives])
    losses = [row["loss"] for row in rows(result.folder / "metrics.jsonl")]
    assert losses[-1] < 0.8 * losses[0]


def test_student_only_predictor_and_tokens_of_the_last_blocks(toy):
    config = toy(augmentation=masked(2), loss={"dino": None, "predict": {}}, backbone={"mask_token": True})
    parts = build(api.plan(config, plugins=[toy_objectives]))
    assert list(parts.student.heads) == ["predictor"] and list(parts.teacher.network.heads) == []
    result = api.run(config, plugins=[toy_objectives])
    assert rows(result.folder / "metrics.jsonl")[0]["predict/blocks"] == 2


def test_a_strategy_may_do_without_a_second_network(toy):
    config = toy(augmentation=masked(2), loss={"dino": None, "pixels": {}}, teacher={"name": "same"})
    result = api.run(config, plugins=[toy_objectives])
    assert not list(result.folder.glob("checkpoints/*/teacher.safetensors"))


def test_two_losses_share_one_forward_pass_and_have_weights(toy):
    config = toy(loss={"again": {"name": "dino", "weight": 0.5}})
    parts = build(api.plan(config))
    assert len(parts.objective.requests) == 3  # both losses want the same
    row = rows(api.run(config).folder / "metrics.jsonl")[0]
    assert row["loss"] == pytest.approx(row["loss/dino"] + 0.5 * row["loss/again"])


class Given(Loss):
    """A loss of one answer."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, outputs, views, values):
        return self.answer()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda: None, "gave None"),
        (lambda: torch.zeros(()), "gave tensor(0.)"),
        (lambda: LossResult(torch.zeros(2)), "has the value tensor([0., 0.])"),
        (lambda: LossResult(0.5), "has the value 0.5"),
        (lambda: LossResult(torch.zeros(()), {"spread": "wide"}), "has the metric spread = 'wide'"),
    ],
)
def test_a_loss_that_gives_something_else_is_told_of(answer, words):
    with pytest.raises(PluginError) as caught:
        computed("mine", Given(answer), {}, None, {})
    assert str(caught.value) == (
        f"[loss.mine], computed by {Given.__module__}.Given: {words}; it is to give LossResult(a tensor of no dimensions, single numbers "
        "by name)"
    )


def test_what_a_loss_raises_says_whose_it_is():
    with pytest.raises(ZeroDivisionError) as caught:
        computed("mine", Given(lambda: 1 / 0), {}, None, {})
    assert caught.value.__notes__ == [f"in [loss.mine], computed by {Given.__module__}.Given"]


def test_losses_that_need_masks_are_refused_where_nobody_makes_them(toy):
    with pytest.raises(
        ConfigError, match='loss.predict: needs patch masks of the view "global", which nobody makes; add'
    ):
        api.plan(toy(loss={"predict": {}}), plugins=[toy_objectives])


def test_masked_patches_become_the_mask_token_before_positions(toy):
    backbone = build(api.plan(toy(backbone={"mask_token": True}))).student.backbone.eval()
    torch.nn.init.ones_(backbone.model.embeddings.mask_token)
    pixels, mask = torch.rand(2, 1, 16, 16), torch.zeros(2, 16, dtype=torch.bool)
    mask[0, 3] = True
    plain, hidden = backbone.embed(pixels).x, backbone.embed(pixels, mask).x
    positions = backbone.model.embeddings.position_embeddings
    torch.testing.assert_close(hidden[0, 4], 1 + positions[0, 4])
    changed = (hidden != plain).any(-1)
    assert changed.nonzero().tolist() == [[0, 4]]


def test_dropping_needs_as_many_masked_patches_in_every_image():
    hidden = Hidden(torch.zeros(2, 5, 3), 1, (1, 2, 2))
    with pytest.raises(ValueError, match="as many masked patches in every image"):
        drop_masked(hidden, torch.tensor([[True, False, False, False], [False] * 4]))


def test_requests_of_one_view_run_the_backbone_once(toy, monkeypatch):
    parts = build(api.plan(toy()))
    calls = []
    monkeypatch.setattr(
        parts.student.backbone,
        "embed",
        lambda p, m=None, f=parts.student.backbone.embed: calls.append(p.shape) or f(p, m),
    )
    from dinomx_core.training.data import collate
    from dinomx_core.training.loop import make_images

    images = make_images(parts)
    views = collate([images[p] for p in range(3)])
    requests = [
        Request("student", "global", select="all"),
        Request("student", "global", head="dino"),
        Request("student", "local", head="dino"),
    ]
    outputs = parts.student(requests, views)
    assert len(calls) == 2
    assert outputs[requests[0]].cls.shape == (6, 16) and outputs[requests[1]].shape == (2, 3, 32)
