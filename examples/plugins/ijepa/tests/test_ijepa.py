"""I-JEPA: what is masked, what the student cannot see, what is predicted of what."""

import math
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from dinomx_core import ConfigError, api
from dinomx_core.testing.processes import group
from dinomx_core.training.build import build
from dinomx_core.training.checkpoint import load_checkpoint
from dinomx_core.training.flow import Tokens, Views
from dinomx_ijepa import plugin
from dinomx_ijepa.loss import IjepaLoss, sines
from dinomx_ijepa.masks import MultiBlockMasking, touching
from tests import mixes, together
from tests.fixtures import rows, steps, stream_of

IJEPA = {
    "backbone": {"name": "hf", "family": "ijepa", "drop_path": 0.0},
    "loss": {"dino": None, "ijepa": {"width": 8, "depth": 1, "heads": 2}},
    "head": {"dino": None},
    "masking": {"name": "multi-block"},
    "augmentation": {"globals": {"count": 1}, "locals": None},
}


@pytest.mark.parametrize("grid", [(4, 4), (14, 14), (6, 9)])
def test_every_crop_of_a_step_loses_as_many_patches(grid):
    masking, rng, patches = MultiBlockMasking(plugin.MultiBlock()), Random(0), grid[0] * grid[1]
    for _ in range(20):
        counts = masking.counts(6, patches, rng)
        assert len(counts) == 6 and len(set(counts)) == 1
        low, high = (1 - (1 - scale) ** 4 for scale in (0.15, 0.2))
        assert math.floor(low * patches) <= counts[0] <= math.ceil(high * patches)
        masks = [masking.mask(count, grid, rng) for count in counts]
        assert {int(mask.sum()) for mask in masks} == {counts[0]}
        assert len({tuple(mask.tolist()) for mask in masks}) > 1


def test_blocks_are_rectangles_of_their_scale():
    masking, rng = MultiBlockMasking(plugin.MultiBlock(blocks=1, scale=[0.2, 0.2], aspect=[1.0, 1.0])), Random(0)
    (count,) = masking.counts(1, 400, rng)
    assert count == 80  # a square of 9 x 9 without its last patch
    rows, columns = masking.mask(count, (20, 20), rng).view(20, 20).nonzero().unbind(1)
    assert (int(rows.max() - rows.min()), int(columns.max() - columns.min())) == (8, 8)


def test_blocks_that_cover_too_little_grow_at_their_edges():
    masking = MultiBlockMasking(plugin.MultiBlock(blocks=2))
    masking.block = lambda area, grid, rng: (range(2), range(2))  # all of them in the corner
    mask = masking.mask(6, (4, 4), Random(0)).view(4, 4)
    assert bool(mask[:2, :2].all()) and int(mask.sum()) == 6
    corner = torch.zeros(4, 4, dtype=torch.bool)
    corner[:2, :2] = True
    edge = touching(corner)
    assert edge.nonzero().tolist() == [[0, 2], [1, 2], [2, 0], [2, 1]]
    assert bool((mask & ~corner & ~edge).sum() == 0)


def test_positions_are_sines_and_cosines_of_row_and_column():
    found = sines(3, 5, 8)
    for row, column in ((0, 0), (1, 3), (2, 4)):
        wanted = [f(axis / 10000 ** (i / 2)) for axis in (row, column) for f in (math.sin, math.cos) for i in range(2)]
        assert found[row * 5 + column].tolist() == pytest.approx(wanted)


def outputs_of(loss, mask, teacher, student):
    """What the core would hand to the loss."""
    empty, count = teacher[:, :0], student.shape[1]
    tokens = {loss.student: Tokens(None, empty, student, (1, 1, count))}
    return {**tokens, loss.teacher: Tokens(None, empty, teacher, (1, 2, 3))}, Views({}, {"global": mask.unsqueeze(0)})


def test_the_loss_is_smooth_l1_of_normed_targets_at_their_places():
    torch.manual_seed(0)
    loss = IjepaLoss(plugin.Ijepa(width=4, depth=1, heads=1), SimpleNamespace(width=5))
    mask = torch.tensor([[1, 0, 0, 1, 0, 1], [0, 1, 1, 1, 0, 0]], dtype=torch.bool)
    teacher, student = 3 * torch.randn(2, 6, 5), torch.randn(2, 3, 5)
    places, asked = sines(2, 3, 4).float(), {}

    def predictor(context, known, wanted):
        asked.update(context=context, known=known, wanted=wanted)
        return 2 * wanted.sum(-1, keepdim=True).expand(-1, -1, 5)

    loss.predictor = None
    loss.__dict__["predictor"] = predictor
    found = loss(*outputs_of(loss, mask, teacher, student), {})
    assert torch.equal(asked["context"], student)
    assert torch.equal(asked["known"], torch.stack([places[[1, 2, 4]], places[[0, 4, 5]]]))
    assert torch.equal(asked["wanted"], torch.stack([places[[0, 3, 5]], places[[1, 2, 3]]]))
    distances = []
    for image, targets in enumerate(([0, 3, 5], [1, 2, 3])):
        for target in targets:
            features = teacher[image, target]
            normed = (features - features.mean()) / (features.var(correction=0) + 1e-5).sqrt()
            away = (2 * places[target].sum() - normed).abs().tolist()
            distances += [0.5 * d * d if d < 1 else d - 0.5 for d in away]
    assert found.value.item() == pytest.approx(sum(distances) / len(distances), rel=1e-5)
    assert found.metrics["masked"].item() == 0.5


def test_a_prediction_depends_on_the_context_and_on_where_the_target_lies():
    torch.manual_seed(0)
    predictor = IjepaLoss(plugin.Ijepa(width=8, depth=1, heads=2), SimpleNamespace(width=5)).predictor
    context, known, wanted = torch.randn(2, 3, 5), torch.randn(2, 3, 8), torch.randn(2, 2, 8)
    plain = predictor(context, known, wanted)
    assert plain.shape == (2, 2, 5)
    others = [(context.flip(0), known, wanted), (context, known.flip(1), wanted), (context, known, wanted.flip(0))]
    assert not any(torch.allclose(predictor(*other), plain, atol=1e-4) for other in others)
    torch.testing.assert_close(predictor(context.flip(1), known.flip(1), wanted), plain)  # their order says nothing


def test_the_student_never_sees_a_target_and_the_teacher_sees_all(toy):
    parts = build(api.plan(toy(**IJEPA), plugins=[plugin]))
    views, _ = next(stream_of(parts))
    loss = parts.losses["ijepa"]
    with torch.no_grad():
        before = [
            parts.student([loss.student], views)[loss.student],
            parts.teacher.network([loss.teacher], views)[loss.teacher],
        ]
        shown = views.masks["global"].view(1, 8, 1, 4, 4).repeat_interleave(4, 3).repeat_interleave(4, 4)
        views.pixels["global"] = torch.where(shown, 7.0, views.pixels["global"])
        after = [
            parts.student([loss.student], views)[loss.student],
            parts.teacher.network([loss.teacher], views)[loss.teacher],
        ]
    assert torch.equal(before[0].patches, after[0].patches)
    assert not torch.allclose(before[1].patches, after[1].patches)
    assert before[0].patches.shape[1] + int(views.masks["global"][0, 0].sum()) == before[1].patches.shape[1] == 16


def test_student_and_predictor_learn_and_the_teacher_follows(toy):
    result = api.run(toy(**IJEPA), plugins=[plugin])
    place = result.folder / "checkpoints" / "4"
    kept = load_file(place / "losses.safetensors")
    assert any(name.startswith("ijepa.predictor.blocks.0.") for name in kept)
    student, teacher = (load_file(place / f"{name}.safetensors") for name in ("student", "teacher"))
    assert student.keys() == teacher.keys()
    moved = [name for name in student if not torch.equal(student[name], teacher[name])]
    assert len(moved) > 0.8 * len(student)
    parts = build(api.plan(toy(**IJEPA), plugins=[plugin]))
    predictor = parts.losses["ijepa"].predictor
    fresh = {name: parameter.detach().clone() for name, parameter in predictor.named_parameters()}
    steps(parts, 2)
    assert not [name for name, parameter in predictor.named_parameters() if torch.equal(parameter, fresh[name])]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_compute_what_one_does(kind):
    one = together.train(mixes.config("dinov1", IJEPA), 5, plugin.__name__)
    table = mixes.config("dinov1", IJEPA, {"parallelism": {"name": kind, "processes": 2}})
    many = group(2)("tests.together:train", table, 5, plugin.__name__)[0]
    assert [row["loss"] for row in many["rows"]] == pytest.approx([row["loss"] for row in one["rows"]], rel=1e-8)


def foretold(parts, views, context):
    """The loss of one batch, its targets told from the context of other images."""
    loss = parts.losses["ijepa"]
    given = replace(views, pixels={"global": context})
    with torch.no_grad():
        outputs = {
            **parts.student([loss.student], given),
            **parts.teacher.network([loss.teacher], views),
        }
        return loss(outputs, views, {}).value.item()


@pytest.mark.slow
def test_the_example_learns_what_the_context_tells_of_the_target(tmp_path):
    config = Path(__file__).parents[1] / "example.toml"
    sets = [f"run.out={tmp_path}", "run.device=cpu", "run.threads=1"]
    result = api.run(config, overrides=sets, plugins=[plugin])
    found = rows(result.folder / "metrics.jsonl")
    assert found[-1]["loss"] < 0.5 * found[0]["loss"]
    assert found[-1]["ijepa/target_std"] > 0.6
    looks = [row["effective_rank"] for row in found if "effective_rank" in row]
    assert looks[-1] > 0.7 * looks[0]
    start, *_, end = [row["logistic/accuracy"] for row in rows(result.folder / "evaluations.jsonl")]
    assert end > start
    assert not (result.folder / "health.jsonl").exists()

    parts = build(api.plan(config, overrides=sets, plugins=[plugin]))
    views, _ = next(stream_of(parts))
    own, other = views.pixels["global"], views.pixels["global"].roll(1, 1)
    fresh = foretold(parts, views, other) / foretold(parts, views, own)
    load_checkpoint(parts, result.folder / "checkpoints" / "300")
    assert foretold(parts, views, other) / foretold(parts, views, own) > 1.2 > fresh


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": {"ijepa": {"heads": 3}}}, "loss.ijepa.heads: width 8 does not divide over 3 heads"),
        ({"loss": {"ijepa": {"width": 6}}}, "loss.ijepa.width: 6 is not a multiple of 4, which positions need"),
        ({"masking": {"scale": [0.001, 0.2]}}, "masking.scale: 4 blocks of 0.001 of the 4 x 4 patches of 16 px hold none; raise it"),
        ({"masking": {"scale": [0.2, 0.9]}}, "masking.scale: 4 blocks of 0.9 leave none of the 4 x 4 patches of 16 px; lower it"),
        ({"masking": None}, 'loss.ijepa: needs patch masks of the view "global", which nobody makes; add [masking] with a name'),
    ],
)  # fmt: skip
def test_what_leaves_nothing_to_predict_is_refused(toy, changes, message):
    config = toy(**IJEPA)
    for table, options in changes.items():
        if options is None:
            del config[table]
        else:
            mixes.update(config[table], options)
    with pytest.raises(ConfigError) as caught:
        api.plan(config, plugins=[plugin])
    assert message in str(caught.value).replace("config: ", "")
