"""DINOv2's parts against their definitions."""

import math
from collections import Counter
from random import Random

import pytest
import torch
from safetensors.torch import load_file

from dinomx_core import ConfigError, HeadShape, api
from dinomx_core.builtin.single import SingleProcess
from dinomx_core.training.branches import BranchLayer
from dinomx_core.training.build import build
from dinomx_core.training.contracts import LossContext
from dinomx_core.training.data import MicroBatches, collate
from dinomx_core.training.flow import Views
from dinomx_core.training.loop import make_images
from dinomx_dinov1.head import DinoHead
from dinomx_dinov2 import plugin
from dinomx_dinov2.ibot import IbotLoss, masked_entropy
from dinomx_dinov2.koleo import KoleoLoss, nearest_distances
from dinomx_dinov2.masks import BlockMasking
from dinomx_dinov2.sinkhorn import SinkhornTarget
from tests.fixtures import TIMINGS, rows, update
from tests.parity.replay import GOLDENS

ONE = SingleProcess(None, torch.device("cpu"))
RECORDED = load_file(GOLDENS / "losses.safetensors")
V2 = {
    "backbone": {"name": "dinov2-registers", "width": 16, "depth": 2, "heads": 2, "patch_size": 4, "drop_path": 0.3},
    "head": {"ibot": {"prototypes": 24, "hidden": 16, "bottleneck": 8}},
    "loss": {
        "dino": {"masked": True, "target": {"name": "sinkhorn-knopp"}},
        "ibot": {"target": {"name": "sinkhorn-knopp"}},
        "koleo": {"weight": 0.1, "masked": True},
    },
    "masking": {"name": "blocks"},
}


def toy_v2(toy, **changes):
    config = toy()
    config["backbone"] = {}
    update(config, V2)
    update(config, changes)
    return config


# --- Sinkhorn-Knopp


@pytest.mark.parametrize("temperature", [0.04, 0.07])
def test_sinkhorn_is_the_recorded_one(temperature):
    target = SinkhornTarget(plugin.SinkhornKnopp(), 64, ONE)
    found, wanted = (
        target(RECORDED["sinkhorn/teacher_logits"], temperature),
        RECORDED[f"sinkhorn/probs_temp_{temperature}"],
    )
    torch.testing.assert_close(found, wanted, atol=1e-6 * float(wanted.max()), rtol=0)


def test_sinkhorn_uses_all_prototypes_alike_and_rows_sum_to_one():
    torch.manual_seed(0)
    found = SinkhornTarget(plugin.SinkhornKnopp(iterations=50), 8, ONE)(torch.randn(32, 8), 0.5)
    torch.testing.assert_close(found.sum(1), torch.ones(32))
    torch.testing.assert_close(found.sum(0), torch.full((8,), 4.0), rtol=1e-3, atol=1e-3)


def test_sinkhorn_of_logits_far_apart_sums_to_one_and_knows_no_offset_of_a_row():
    torch.manual_seed(0)
    target = SinkhornTarget(plugin.SinkhornKnopp(), 8, ONE)
    logits = 5 * torch.randn(32, 8)
    found = target(logits, 0.04)
    torch.testing.assert_close(found.sum(1), torch.ones(32))
    rows = torch.tensor([[5.0, 4.0, 3.0, 2.0], [1.0, 0.0, -1.0, -2.0], [0.9, 0.0, -1.0, -2.0]])
    found = SinkhornTarget(plugin.SinkhornKnopp(iterations=50), 4, ONE)(rows, 0.04)
    torch.testing.assert_close(found[0], found[1])
    assert target(torch.empty(0, 8), 0.04).shape == (0, 8)


def test_sinkhorn_over_two_ranks_is_that_of_all_rows():
    torch.manual_seed(0)
    logits = torch.randn(6, 5)

    whole = SinkhornTarget(plugin.SinkhornKnopp(iterations=1), 5, ONE)(logits, 0.1)
    found = []
    for mine, others in ((logits[:2], logits[2:]), (logits[2:], logits[:2])):
        ranks = SingleProcess(None, torch.device("cpu"))
        largest = logits.amax(0) / 0.1
        ranks.max = lambda tensor, largest=largest: largest
        ranks.sum = lambda tensor, others=others, largest=largest: tensor + torch.exp(others / 0.1 - largest).sum(0)
        found.append(SinkhornTarget(plugin.SinkhornKnopp(iterations=1), 5, ranks)(mine, 0.1))
    torch.testing.assert_close(torch.cat(found), whole)


# --- iBOT


def test_ibot_is_the_recorded_one():
    found, _ = masked_entropy(
        RECORDED["ibot/teacher_probs_masked"], RECORDED["ibot/student_logits_masked"], RECORDED["ibot/masks"], 0.1
    )
    assert found.item() == pytest.approx(RECORDED["ibot/loss"].item(), rel=1e-6)


def ibot(masks, student, teacher):
    context = LossContext(
        {"ibot": HeadShape(8, 0)}, 4, ONE, lambda chosen, outputs: lambda x, temperature: x.softmax(-1)
    )
    loss = IbotLoss(plugin.Ibot(target=None), context)
    outputs = dict(zip(plugin.ibot_requests(plugin.Ibot(target=None)), (student, teacher)))
    return loss(outputs, Views({}, {"global": masks}), {"teacher_temperature": 0.04})


def test_an_image_counts_alike_however_many_of_its_patches_are_masked():
    masks = torch.tensor([[[True, False, False, False]], [[True, True, True, False]]])
    student, teacher = torch.zeros(4, 8), torch.randn(4, 8)
    assert ibot(masks, student, teacher).value.item() == pytest.approx(math.log(8))


def test_a_batch_without_masked_patches_adds_nothing_and_no_nan():
    student = torch.zeros(0, 8, requires_grad=True)
    result = ibot(torch.zeros(2, 1, 4, dtype=torch.bool), student, torch.zeros(0, 8))
    result.value.backward()
    assert result.value.item() == 0.0 and result.metrics == {"masked": 0.0}


def test_only_masked_patches_go_through_the_head_and_the_teacher_sees_no_mask(toy, monkeypatch):
    parts = build(api.plan(toy_v2(toy)))
    seen = {}
    for name, network in parts.objective.networks.items():
        head = network.heads["ibot"]
        monkeypatch.setattr(
            head, "forward", lambda x, n=name, h=head: seen.setdefault(n, x) is None or DinoHead.forward(h, x)
        )
    views = collate([make_images(parts)[p] for p in range(8)])
    masked = int(views.masks["global"].sum())
    parts.objective(
        views, {label: {"weight": 1.0, "teacher_temperature": 0.04, "local_weight": 1.0} for label in parts.losses}
    )
    assert masked > 0 and seen["student"].shape == seen["teacher"].shape == (masked, 16)
    teacher = parts.teacher.network.backbone(views.pixels["global"].flatten(0, 1))
    torch.testing.assert_close(seen["teacher"], teacher.patches[views.masks["global"].flatten(0, 1)])


# --- KoLeo


@pytest.mark.parametrize(("neighbours", "name"), [(1, "loss"), (3, "loss_top3")])
def test_koleo_is_the_recorded_one(neighbours, name):
    features = RECORDED["koleo/features"]
    found = -(nearest_distances(features, features, 0, neighbours, 0)[0] + 1e-8).log().mean()
    assert found.item() == pytest.approx(RECORDED[f"koleo/{name}"].item(), rel=1e-6)


def koleo(tokens, **options):
    options = plugin.Koleo(**options)
    loss = KoleoLoss(options, LossContext({}, tokens.shape[-1], ONE, None))
    result = loss({plugin.koleo_requests(options)[0]: tokens}, None, {})
    return result, list(loss.notes({name: float(value) for name, value in result.metrics.items()}))


@pytest.mark.parametrize(
    ("tokens", "note"),
    [
        (torch.ones(2, 1, 4), "an image had fewer neighbours in its batch"),
        (torch.ones(2, 5, 4), "class tokens of a batch were the same as another's"),
        (torch.tensor([[[1.0, 0, 0], [1.0, 0, 0], [0, 1.0, 0]]]), "class tokens of a batch were the same as another's"),
        (torch.zeros(1, 3, 4), "class tokens of a batch were the same as another's"),
    ],
)
def test_duplicates_and_tiny_batches_give_a_finite_loss_and_a_note(tokens, note):
    tokens = tokens.clone().requires_grad_()
    result, notes = koleo(tokens)
    result.value.backward()
    assert bool(torch.isfinite(result.value)) and bool(torch.isfinite(tokens.grad).all())
    assert [n for n in notes if n.startswith(note)]


def test_a_usual_batch_has_no_note_and_its_gradient_spreads():
    torch.manual_seed(0)
    tokens = torch.randn(2, 8, 4, requires_grad=True)
    result, notes = koleo(tokens)
    result.value.backward()
    moved = (tokens - 0.01 * tokens.grad).detach()
    assert notes == [] and koleo(moved)[0].metrics["distance"] > result.metrics["distance"]


def test_groups_keep_neighbours_apart():
    rows = torch.tensor([[1.0, 0.0], [0.99, 0.1], [0.0, 1.0], [1.0, 0.01]])
    whole, grouped = nearest_distances(rows, rows, 0, 1, 0)[0], nearest_distances(rows, rows, 0, 1, 2)[0]
    assert grouped[0] > whole[0]
    torch.testing.assert_close(grouped[::2], grouped[1::2])


def test_a_group_that_does_not_divide_the_batch_leaves_out_only_the_rest():
    torch.manual_seed(0)
    result, notes = koleo(torch.randn(1, 9, 4), group=4)
    assert result.metrics["missing"] == 1 and result.metrics["distance"] > 0 and len(notes) == 1


def test_ranks_look_among_the_rows_of_all():
    torch.manual_seed(0)
    rows = torch.randn(6, 4)
    whole, _ = nearest_distances(rows, rows, 0, 2, 0)
    parts = [nearest_distances(rows[first : first + 3], rows, first, 2, 0)[0] for first in (0, 3)]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_the_note_is_told_once_in_a_run(toy, capsys):
    said = []

    class Listening(api.Silent):
        def note(self, text):
            said.append(text)

    config = toy_v2(toy, run={"batch_size": 1}, masking={"share": 1.0}, backbone={"drop_path": 0.0})
    api.run(config, progress=Listening())
    assert len([text for text in said if "loss.koleo: an image had fewer neighbours" in text]) == 1


# --- masks


def reference_counts(crops, patches, share, low, high, rng):
    """The definition: equal parts of the range, one masked crop each."""
    masked = int(crops * share)
    width = (high - low) / masked
    return [int(patches * rng.uniform(low + i * width, low + (i + 1) * width)) for i in range(masked)]


def test_counts_are_stratified_over_a_step():
    masking, patches = BlockMasking(plugin.Blocks()), 196
    rng, theirs = Random(0), Random(1)
    found, wanted = Counter(), Counter()
    for _ in range(100):
        counts = masking.counts(100, patches, rng)
        masked = sorted(c for c in counts if c)
        assert len(counts) == 100 and len(masked) == 50  # the share of images
        for i, count in enumerate(masked):  # one of each part of the range, up to rounding down
            assert patches * (0.1 + 0.4 * i / 50) - 1 <= count <= patches * (0.1 + 0.4 * (i + 1) / 50)
        found.update(c // 10 for c in masked)
        wanted.update(c // 10 for c in reference_counts(100, patches, 0.5, 0.1, 0.5, theirs))
    assert all(abs(found[bin_] - wanted[bin_]) <= 25 for bin_ in wanted), (found, wanted)  # of some 600 each
    first = Counter(masking.counts(4, patches, Random(seed))[0] > 0 for seed in range(400))
    assert 150 < first[True] < 250  # which crops are masked is random


def reference_mask(count, side, rng):
    """Rectangles as BEiT's algorithm draws them; returns the mask and its blocks' (height, width)."""
    mask, blocks, masked = torch.zeros(side, side, dtype=torch.bool), [], 0
    while masked < count:
        most = min(count - masked, side * side // 2)
        for _ in range(10):
            area, aspect = rng.uniform(4, most), math.exp(rng.uniform(math.log(0.3), -math.log(0.3)))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if w < side and h < side:
                top, left = rng.randint(0, side - h), rng.randint(0, side - w)
                new = h * w - int(mask[top : top + h, left : left + w].sum())
                if 0 < new <= most:
                    mask[top : top + h, left : left + w] = True
                    blocks.append((h, w))
                    masked += new
                    break
        else:
            break
    return mask, blocks


@pytest.mark.slow
def test_masks_agree_with_the_reference_definition_over_ten_thousand_draws():
    masking, side = BlockMasking(plugin.Blocks()), 14
    ours, theirs, hits = [], [], torch.zeros(side * side)
    expected = torch.zeros(side * side)
    rng, other, shapes = Random(0), Random(1), [Counter(), Counter()]
    drawn = masking._block
    for draw in range(10_000):
        count = int(side * side * rng.uniform(0.1, 0.5))
        first = torch.zeros(side, side, dtype=torch.bool)
        if draw < 2_000:  # the first block alone shows its shape
            drawn(first, min(count, side * side // 2), rng)
            height, width = int(first.any(1).sum()), int(first.any(0).sum())
            shapes[0].update([round(2 * math.log(height / width))])
            shapes[1].update([round(2 * math.log(h / w)) for h, w in reference_mask(count, side, other)[1][:1]])
        mask = masking.mask(count, (side, side), rng)
        wanted, _ = reference_mask(count, side, other)
        assert int(mask.sum()) <= count
        ours.append(int(mask.sum()) / count)
        theirs.append(int(wanted.sum()) / count)
        hits += mask
        expected += wanted.flatten()
    assert sum(ours) / len(ours) == pytest.approx(sum(theirs) / len(theirs), abs=0.005)
    torch.testing.assert_close(hits / 10_000, expected / 10_000, atol=0.025, rtol=0)
    for aspect in shapes[1]:
        assert shapes[0][aspect] == pytest.approx(shapes[1][aspect], abs=80)


@pytest.mark.parametrize("grid", [(14, 14), (4, 4), (6, 10), (1, 1)])
def test_exact_masks_have_the_exact_count(grid):
    masking, patches = BlockMasking(plugin.Blocks(exact=True)), grid[0] * grid[1]
    rng = Random(0)
    counts = masking.counts(64, patches, rng)
    edges = sorted({int(patches * (0.1 + 0.4 * (i + 1) / 32) + 1e-9) for i in range(32)} | {0})
    assert sorted(set(counts)) == edges
    assert all(int(masking.mask(c, grid, rng).sum()) == c for c in counts if c)


def test_masks_of_a_step_are_the_same_however_it_is_divided(toy):
    def masks(**changes):
        parts = build(api.plan(toy_v2(toy, **changes)))
        images = make_images(parts)
        batches = MicroBatches(parts.plan.batch, 0, 1, 2)
        return torch.cat([collate([images[p] for p in batch]).masks["global"] for batch in batches], 1)

    whole = masks()
    assert int((whole.sum(-1) > 0).sum()) == 8  # half of 2 x 8 crops
    assert torch.equal(whole, masks(run={"accumulation": 4}))


# --- backbones


@pytest.mark.parametrize("name", ["dinov2", "dinov2-registers"])
@pytest.mark.parametrize("swiglu", [False, True])
def test_backbone_options_survive(toy, name, swiglu):
    options = {"name": name, "width": 32, "depth": 3, "heads": 4, "patch_size": 8, "image_size": 64, "swiglu": swiglu}
    options |= {"layer_scale": 0.3, "mlp_ratio": 2, "layer_norm_eps": 1e-5, "positions": "offset"}
    config = toy(augmentation={"globals": {"size": 32}, "locals": {"size": 16}})
    config["backbone"] = options
    plan = api.plan(config)
    parts = build(plan)
    c = parts.student.backbone.model.config
    assert (c.patch_size, c.image_size, c.num_channels, c.mlp_ratio, c.use_swiglu_ffn) == (8, 64, 1, 2, swiglu)
    assert (c.layerscale_value, c.layer_norm_eps, c.num_hidden_layers, c.num_attention_heads) == (0.3, 1e-5, 3, 4)
    assert sum(p.numel() for p in parts.student.backbone.parameters()) == plan.backbone.parameters
    tokens = parts.student.backbone(torch.rand(2, 1, 24, 40))
    assert tokens.patches.shape == (2, 15, 32) and tokens.grid == (1, 3, 5)
    assert tokens.registers.shape[1] == (4 if "registers" in name else 0)


def test_drop_path_over_a_subset_is_unbiased_and_leaves_images_out():
    class Double(BranchLayer):
        """A block whose branches double their input."""

        subset = True

        def __init__(self):
            super().__init__()
            self.drop_path = torch.nn.Module()
            self.drop_path.probability = 0.25

    layer, calls = Double(), []
    x = torch.ones(8, 2, 3)
    torch.manual_seed(0)
    total = sum(layer.residual(x, lambda part, _: calls.append(len(part)) or part, None, None) for _ in range(2000))
    torch.testing.assert_close(total / 2000, 2 * x, atol=0.05, rtol=0)
    assert set(calls) == {6}
    once = layer.residual(x, lambda part, _: part, None, None)
    assert sorted(once[:, 0, 0].tolist()) == pytest.approx([1.0, 1.0] + [1 + 8 / 6] * 6)


def test_subset_drop_path_trains_and_is_off_in_evaluation(toy):
    parts = build(api.plan(toy_v2(toy)))
    backbone, pixels = parts.student.backbone, torch.rand(8, 1, 16, 16)
    assert all(block.subset for block in backbone.blocks)
    assert not torch.equal(backbone(pixels).cls, backbone(pixels).cls)
    backbone.eval()
    assert torch.equal(backbone(pixels).cls, backbone(pixels).cls)


# --- whole runs


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_is_the_same_with_any_workers_and_after_a_resume(toy, tmp_path, workers):
    config = toy_v2(toy, run={"name": f"w{workers}"}, loader={"workers": workers}, checkpoint={"every": 2})
    whole = rows(api.run(config).folder / "metrics.jsonl")
    folder = tmp_path / "runs" / f"w{workers}"
    import shutil

    shutil.rmtree(folder / "checkpoints" / "4")
    shutil.rmtree(folder / "export")
    again = rows(api.run(config, resume=True).folder / "metrics.jsonl")
    plain = [[{k: v for k, v in row.items() if k not in TIMINGS} for row in some] for some in (whole, again)]
    assert plain[0] == plain[1] and plain[0][-1]["ibot/masked"] > 0


def test_one_head_may_serve_both_losses(toy):
    config = toy_v2(toy, loss={"ibot": {"head": "dino"}})
    del config["head"]["ibot"]
    parts = build(api.plan(config))
    assert list(parts.student.heads) == ["dino"]
    api.run(config)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"masking": {"ratio": [0.1, 1.5]}},
            "masking.ratio: must be [smallest, largest] with 0 < smallest <= largest <= 1",
        ),
        ({"masking": {"share": 0.01}}, "masking.share: 0.01 of 16 crops a step masks none"),
        ({"masking": {"ratio": [0.01, 0.02]}}, "masking.ratio: 0.02 of the 4 x 4 patches of 16 px is less than one"),
        (
            {"masking": {"largest": 0.1}},
            "masking.smallest: a block of 4 is more than the share 0.1 of the 4 x 4 patches",
        ),
        (
            {"augmentation": {"globals": {"size": [4, 32]}}},
            "masking.exact: no block lies within one row or column of the 1 x 8 patches",
        ),
        ({"masking": {"view": "loc"}}, 'masking: masks the view "loc", which the augmentation does not make'),
        ({"masking": None}, 'loss.ibot: needs patch masks of the view "global", which nobody makes; add [masking]'),
        ({"head": {"ibot": {"prototypes": 0}}}, "head.ibot.prototypes: must be >= 2, got 0"),
        ({"augmentation": {"locals": None}}, 'loss.dino.local_view: no crops are called "local"'),
        ({"loss": {"koleo": {"group": 1}}}, "loss.koleo.group: 1 images hold no 1 neighbours of each"),
        ({"backbone": {"layer_scale": 0.0}}, "backbone.layer_scale: must be > 0"),
        ({"backbone": {"width": 30, "heads": 4}}, "backbone.heads: width 30 does not divide over 4 heads"),
    ],
)
def test_what_cannot_be_is_refused(toy, change, expected):
    with pytest.raises(ConfigError) as caught:
        api.plan(toy_v2(toy, **change))
    assert expected in str(caught.value)


@pytest.mark.parametrize("recipe", ["dinov2", "dinov2-long", "dinov2-small"])
def test_recipes_plan(recipe, image_folder):
    data = {"name": "image-folder", "path": str(image_folder)}
    plan = api.plan({"recipe": recipe, "run": {"batch_size": 4, "device": "cpu"}, "data": data})
    assert set(plan.spec.losses) == {"dino", "ibot", "koleo"}


def test_continuing_needs_weights_and_starts_with_the_heads(image_folder, model_folder):
    data = {"name": "image-folder", "path": str(image_folder)}
    config = {"recipe": "dinov2-continue", "run": {"batch_size": 4, "device": "cpu"}, "data": data}
    with pytest.raises(ConfigError, match='backbone.weights: there is no folder or file "your-dinov2-weights"'):
        api.plan(config)
    weights = model_folder("dinov2", patch_size=14, image_size=56, mask_token=True)
    plan = api.plan({**config, "backbone": {"weights": str(weights)}})
    assert plan.values_at(0)["optimizer.backbone_lr"] == 0.0 < plan.values_at(9000)["optimizer.backbone_lr"] < 1.0
