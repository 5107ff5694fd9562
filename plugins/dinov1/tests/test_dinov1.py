"""DINO's parts against their definitions."""

import math

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import ViTModel

from dinomx_core import Chosen, DataError, HeadShape
from dinomx_core.declare.discover import discover
from dinomx_core.training.branches import DropPath
from dinomx_core.training.construct import construct
from dinomx_core.training.contracts import LossContext
from dinomx_core.training.flow import Views
from dinomx_dinov1 import plugin
from dinomx_dinov1.backbone import ViTBackbone
from dinomx_dinov1.head import DinoHead, WeightNormLinear
from dinomx_dinov1.loss import DinoLoss, pair_entropy
from dinomx_dinov1.target import CenteringTarget
from tests.parity.replay import GOLDENS


class OneProcess:
    def sum(self, tensor):
        return tensor


def vit(channels=3, image_size=32, **options):
    options = plugin.ViT(**{"width": 24, "depth": 3, "heads": 2, "patch_size": 8, **options})
    return ViTBackbone(options, plugin.vit_shape(options, channels, image_size), image_size)


def test_the_loss_is_the_recorded_one():
    recorded = load_file(GOLDENS / "losses.safetensors")
    teacher, student = recorded["dino/teacher_probs"], recorded["dino/student_logits"]
    every_pair = pair_entropy(teacher, student, 0.1, same_crops=False)
    assert every_pair.item() == pytest.approx(recorded["dino/loss"].item(), rel=1e-6)
    only_global = pair_entropy(teacher, student[:2], 0.1, same_crops=True)
    assert only_global.item() == pytest.approx(recorded["dino/loss_ignore_diagonal"].item(), rel=1e-6)


@pytest.mark.parametrize(("teachers", "locals_"), [(1, 1), (3, 0), (2, 8)])
def test_the_mean_is_over_all_pairs_of_different_crops(teachers, locals_):
    torch.manual_seed(0)
    context = LossContext({"dino": HeadShape(8, 0)}, 4, OneProcess(), lambda chosen, outputs: lambda p, temperature: p)
    options = plugin.Dino(target=None, local_view="local" if locals_ else "")
    p, q = torch.rand(teachers, 4, 8).softmax(-1), torch.randn(teachers + locals_, 4, 8)
    pairs = [(t, s) for t in range(teachers) for s in range(teachers + locals_) if s != t]
    each = {pair: -(p[pair[0]] * F.log_softmax(q[pair[1]] / 0.1, -1)).sum(-1).mean() for pair in pairs}
    loss = DinoLoss(options, context)
    outputs = dict(zip(plugin.dino_requests(options), (q[:teachers], q[teachers:])))
    outputs[plugin.dino_requests(options)[-1]] = p
    value = loss(outputs, None, {"teacher_temperature": 1.0, "local_weight": 1.0}).value
    assert value.item() == pytest.approx(sum(each.values()).item() / len(pairs), rel=1e-5)
    halved = sum(part * (0.5 if s >= teachers else 1.0) for (_, s), part in each.items()) / len(pairs)
    value = loss(outputs, None, {"teacher_temperature": 1.0, "local_weight": 0.5}).value
    assert value.item() == pytest.approx(halved.item(), rel=1e-5)


def test_a_fresh_head_gives_about_the_logarithm_of_its_prototypes():
    torch.manual_seed(0)
    head = DinoHead(plugin.DinoHead(prototypes=4096, hidden=64, bottleneck=32), 16)
    logits = head(torch.randn(64, 16)).view(2, 32, 4096)
    uniform = torch.full_like(logits, 1 / 4096)
    assert pair_entropy(uniform, logits, 1.0, same_crops=True).item() == pytest.approx(math.log(4096), rel=0.01)


def test_centering_is_used_before_it_is_updated_and_only_in_training():
    target = CenteringTarget(plugin.Centering(momentum=0.9), 3, OneProcess())
    logits = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    torch.testing.assert_close(target(logits, 0.5), (logits / 0.5).softmax(-1))
    target.after_step(OneProcess())
    torch.testing.assert_close(target.center, 0.1 * logits.mean(0, keepdim=True))
    torch.testing.assert_close(target(logits, 0.5), ((logits - target.center) / 0.5).softmax(-1))
    center = target.center.clone()
    target.eval()
    target.after_step(OneProcess())  # what was seen above
    target(logits, 0.5)
    before = target.center.clone()
    target.after_step(OneProcess())
    assert not torch.equal(before, center) and torch.equal(target.center, before)


def test_weight_norm_is_torchs():
    torch.manual_seed(0)
    ours = WeightNormLinear(8, 5, train_magnitude=True)
    theirs = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(8, 5, bias=False))
    theirs.parametrizations.weight.original1.data.copy_(ours.weight_v.data)
    theirs.parametrizations.weight.original0.data.copy_(ours.weight_g.data)
    x = torch.randn(3, 8)
    torch.testing.assert_close(ours(x), theirs(x))
    assert not WeightNormLinear(8, 5, train_magnitude=False).weight_g.requires_grad


@pytest.mark.parametrize("size", [(32, 32), (16, 16), (40, 24)])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_features_are_those_of_transformers(tmp_path, size, channels):
    torch.manual_seed(0)
    backbone = vit(channels).eval()
    backbone.save(tmp_path)
    theirs = ViTModel.from_pretrained(tmp_path, add_pooling_layer=False).eval()
    pixels = torch.randn(2, channels, *size)
    with torch.no_grad():
        tokens = backbone(pixels)
        if size[0] == size[1]:
            reference = theirs(pixels, interpolate_pos_encoding=True).last_hidden_state
            torch.testing.assert_close(tokens.cls, reference[:, 0], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(tokens.patches, reference[:, 1:], rtol=1e-5, atol=1e-6)
    assert tokens.grid == (1, size[0] // 8, size[1] // 8) and tokens.patches.shape[1] == tokens.grid[1] * tokens.grid[2]
    assert tokens.registers.shape == (2, 0, 24)


@pytest.mark.parametrize("options", [{}, {"qkv_bias": False, "mask_token": True}, {"image_size": 64, "mlp_ratio": 2.0}])
def test_the_declared_parameters_are_the_built_ones(options):
    made = plugin.ViT(**{"width": 24, "depth": 3, "heads": 2, "patch_size": 8, **options})
    backbone = ViTBackbone(made, plugin.vit_shape(made, 5, 32), 32)
    assert plugin.vit_shape(made, 5, 32).parameters == sum(p.numel() for p in backbone.parameters())


def test_weights_that_do_not_fit_are_refused(tmp_path):
    vit(depth=2).save(tmp_path)
    with pytest.raises(DataError, match=r"38/54 tensors fit the backbone; not so layers\.2\."):
        vit(depth=3).load(tmp_path)
    backbone, other = vit(depth=2), vit(depth=2)
    backbone.load(tmp_path)
    other.load(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(backbone.parameters(), other.parameters()))


def test_the_last_blocks_tokens_end_with_the_final_ones():
    backbone = vit().eval()
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        tokens = backbone(pixels, layers=2)
        torch.testing.assert_close(tokens[1].cls, backbone(pixels).cls)
    assert len(tokens) == 2 and not torch.allclose(tokens[0].cls, tokens[1].cls)


def test_drop_path_is_linear_in_depth_unbiased_and_off_in_evaluation():
    backbone = vit(drop_path=0.2)
    assert [block.dropout.probability for block in backbone.blocks] == pytest.approx([0.0, 0.1, 0.2])
    torch.manual_seed(0)
    drop, ones = DropPath(0.25), torch.ones(4000, 2, 3)
    dropped = drop(ones)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.05)
    assert {round(v, 4) for v in dropped.unique().tolist()} == {0.0, 1.3333}
    assert bool((dropped.flatten(1).std(1) == 0).all())  # whole samples
    assert torch.equal(drop.eval()(ones), ones)


def test_the_loss_module_sees_views_of_its_options():
    registry = discover()
    options = plugin.Dino(
        target=Chosen("target", registry.find("target", "centering"), plugin.Centering()), local_view=""
    )
    head = plugin.head_shape(plugin.DinoHead(prototypes=8), 4)
    loss = DinoLoss(
        options,
        LossContext({"dino": head}, 4, OneProcess(), lambda chosen, outputs: construct(chosen, outputs, OneProcess())),
    )
    student, teacher = loss.globals, loss.teacher
    logits = torch.randn(2, 3, 8)
    result = loss({student: logits, teacher: logits}, Views({}), {"teacher_temperature": 0.04, "local_weight": 1.0})
    assert result.value.ndim == 0 and 0 <= float(result.metrics["teacher_entropy"]) <= 1


def test_a_shortened_last_block_gives_the_same_class_token_and_gradients():
    torch.manual_seed(0)
    backbone = vit(drop_path=0.0)
    pixels, weights = torch.randn(2, 3, 32, 32), torch.randn(2, 24)
    found = []
    for short in (False, True):
        backbone.zero_grad()
        tokens = backbone(pixels, short=short)
        (tokens.cls * weights).sum().backward()
        found.append((tokens.cls.detach(), {name: p.grad.clone() for name, p in backbone.named_parameters()}))
    assert tokens.patches.shape[1] == 0
    torch.testing.assert_close(found[0][0], found[1][0])
    for name, grad in found[0][1].items():
        torch.testing.assert_close(grad, found[1][1][name], rtol=1e-4, atol=1e-6)


def test_blocks_are_those_of_transformers():
    torch.manual_seed(0)
    backbone = vit().eval()
    hidden = torch.randn(2, 17, 24)
    block = backbone.blocks[1]
    from transformers.models.vit.modeling_vit import ViTLayer

    with torch.no_grad():
        torch.testing.assert_close(block(hidden), ViTLayer.forward(block, hidden), rtol=1e-5, atol=1e-6)
