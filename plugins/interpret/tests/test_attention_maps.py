"""Maps of attention against the models' own, the reference code's, and sums by hand."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    IJepaConfig,
    IJepaModel,
    ViTConfig,
    ViTModel,
)

from dinomx_core import api
from dinomx_core.training.attention import recorded, recorded_keys
from dinomx_core.training.flow import Item
from dinomx_core.training.maps import head_maps, on_patches
from dinomx_core.training.model import Model
from dinomx_core.training.pixels import normalise
from dinomx_interpret.seeing import see
from tests.parity import configs, plugin
from tests.parity.replay import GOLDENS, LIMIT, below, distance, our_names

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
MADE = {  # tokens before the patches, and the model
    "vit": (1, lambda: ViTModel(ViTConfig(**SIZES), add_pooling_layer=False)),
    "dinov2": (1, lambda: Dinov2Model(Dinov2Config(**SIZES, layerscale_value=0.5))),
    "registers": (4, lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SIZES, num_register_tokens=3))),
    "dinov3": (3, lambda: DINOv3ViTModel(DINOv3ViTConfig(**SIZES, num_register_tokens=2))),
    "ijepa": (0, lambda: IJepaModel(IJepaConfig(**SIZES), add_pooling_layer=False)),
}
GRID = (4, 7)


@pytest.fixture(scope="module", params=MADE)
def seen(request, tmp_path_factory):
    """A model's own tokens and attentions of an image that is not square, and what we see of it."""
    torch.manual_seed(0)
    prefix, make = MADE[request.param]
    folder = tmp_path_factory.mktemp("weights") / request.param
    made = make()
    for name, tensor in made.named_parameters():  # far from the even attention of fresh weights
        if name.endswith(("q_proj.weight", "k_proj.weight", "query.weight", "key.weight")):
            torch.nn.init.normal_(tensor, std=0.3)
    made.save_pretrained(folder)
    model = api.model_of(folder)
    item = Item(torch.randint(0, 256, (3, 32, 56), dtype=torch.uint8))
    ours = [see(model, item, (32, 56), block) for block in range(3)]
    theirs = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    pixels = normalise(item.image.float() / 255, model.preprocessing.mean, model.preprocessing.std)[None]
    more = {} if "dino" in request.param or request.param == "registers" else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        found = theirs(pixels, output_attentions=True, **more)
    return prefix, found, ours


def query(attention, prefix):
    """The rows that ask: the class token's, or the mean over patches of a model without one."""
    return attention[:, :, 0] if prefix else attention.mean(2)


def test_maps_are_the_models_own_eager_attentions(seen):
    prefix, theirs, ours = seen
    for block in range(3):
        expected = query(theirs.attentions[block], prefix)[0, :, prefix:].unflatten(-1, GRID)
        assert ours[block].attended.heads.shape == (2, *GRID)
        torch.testing.assert_close(torch.tensor(ours[block].attended.heads), expected, rtol=1e-4, atol=1e-6)
    assert float(expected.std()) > 0.002  # even attention would show nothing


def test_registers_attend_from_their_own_rows_to_patches_alone(seen):
    prefix, theirs, ours = seen
    expected = theirs.attentions[-1].mean(1)[0, min(prefix, 1) : prefix, prefix:].unflatten(-1, GRID)
    assert ours[-1].attended.registers.shape == (max(prefix - 1, 0), *GRID)
    torch.testing.assert_close(torch.tensor(ours[-1].attended.registers), expected, rtol=1e-4, atol=1e-6)


def test_rollout_is_the_product_of_the_blocks(seen):
    prefix, theirs, ours = seen
    product = torch.eye(prefix + 28)
    for block, attention in enumerate(theirs.attentions):
        product = (attention.mean(1)[0] / 2 + torch.eye(prefix + 28) / 2) @ product
        expected = query(product[None, None], prefix)[0, 0, prefix:].unflatten(-1, GRID)
        torch.testing.assert_close(torch.tensor(ours[block].attended.rollout), expected, rtol=1e-4, atol=1e-6)


def test_patches_are_the_last_hidden_state_without_what_stands_before_them(seen):
    prefix, theirs, ours = seen
    expected = theirs.last_hidden_state[0, prefix:]
    torch.testing.assert_close(torch.tensor(ours[-1].patches), expected, rtol=1e-4, atol=1e-5)


def test_maps_equal_the_reference_codes_recorded_last_attention():
    path = str(GOLDENS / "dinov1_trajectory.safetensors")
    tensors = load_file(path)
    plan = api.plan(configs.dinov1(path, below(tensors, "init/")), plugins=[plugin])
    model = Model.of_plan(plan)
    ours = our_names(below(tensors, "final_student/"))
    state = {name.removeprefix("backbone."): t for name, t in ours.items() if name.startswith("backbone.")}
    assert not model.backbone.load_state_dict(state, strict=False).missing_keys
    crops, theirs = tensors["crops"][0, 0], tensors["last_attention"]
    with torch.no_grad(), recorded() as maps:
        tokens = model.backbone(crops)
    grid = tokens.grid[1:]
    assert distance(on_patches(tokens, maps[-1]), theirs[:, :, 0, 1:]) < LIMIT
    how = model.preprocessing
    for number, crop in enumerate(crops):  # crops are normalised already: take that back, since a model does it
        image = crop * torch.tensor(how.std).view(-1, 1, 1) + torch.tensor(how.mean).view(-1, 1, 1)
        heads = see(model, Item(image), tuple(crop.shape[-2:]), len(maps) - 1).attended.heads
        assert distance(torch.tensor(heads), theirs[number, :, 0, 1:].unflatten(-1, grid)) < LIMIT


@pytest.mark.parametrize("name", ["channel-tokens", "bag-of-channels"])
def test_channels_with_patches_of_their_own_are_put_together(name, toy, image_folder):
    inner = {"name": "dinov2-registers", "width": 16, "depth": 2, "heads": 2, "patch_size": 8}
    augmentation = {"mean": [0.5] * 3, "std": [0.5] * 3, "globals": {"size": 32}, "locals": {"size": 16}}
    config = toy(
        data={"name": "image-folder", "path": str(image_folder), "split": None}, augmentation=augmentation,
        backbone={"name": name, "width": None, "depth": None, "heads": None, "patch_size": None, "drop_path": None, "inner": inner},
    )  # fmt: skip
    model = Model.of_plan(api.plan(config))
    registers = model.backbone.model.config.num_register_tokens
    item = Item(torch.randint(0, 256, (3, 32, 56), dtype=torch.uint8))
    found = see(model, item, (32, 56), 1)
    pixels = normalise(item.image.float() / 255, [0.5], [0.5])[None]
    with torch.no_grad(), recorded() as maps:
        tokens = model.backbone(pixels)
    prefix, last = 1 + registers, maps[-1]  # one sequence of all channels, or one a channel
    rows = last[:, :, 0, prefix:].unflatten(-1, (-1, *GRID)).sum(2).mean(0)
    torch.testing.assert_close(torch.tensor(found.attended.heads), rows)
    assert found.grid == GRID and found.attended.registers.shape == (registers, *GRID)
    torch.testing.assert_close(torch.tensor(found.patches), tokens.patches[0].unflatten(0, (3, 28)).mean(0))
    alone, heads, keys = head_maps(model._encoder, [item, item])  # at the size of evaluations
    with torch.no_grad(), recorded_keys() as own:
        model.encode([item, item])
    height, width = alone.grid[1:]
    patches = own[-1][:, :, prefix:].transpose(1, 2).flatten(2).reshape(2, 3, height, width, 16)
    torch.testing.assert_close(keys, patches.mean(1))
    assert heads.shape == (2, 2, height, width)
    shares = found.attended.heads.sum((1, 2)) + last[:, :, 0, :prefix].sum(-1).mean(0).numpy()
    torch.testing.assert_close(torch.tensor(shares), torch.ones(2, dtype=torch.float32))
