"""Augmentations by domain: no colour, no clipping, one switch, and draws that follow from the run alone."""

import pytest
import torch

from dinomx_core import ConfigError, api
from dinomx_core.testing import toy as planes
from dinomx_core.training.construct import construct
from dinomx_core.training.flow import Item
from dinomx_core.training.streams import Stream
from dinomx_medical_multichannel.domains import DOMAINS
from tests.fixtures import in_table

OFF = {
    "change": 0.0, "noise": 0.0, "blur": 0.0, "bias": 0.0, "rotate": 0.0, "channel_dropout": 0.0, "flip": 0.0, "vertical_flip": 0.0,
    "quarter_turns": False, "mean": [0.0], "std": [1.0],
}  # fmt: skip
WHOLE = {"globals": {"size": 24, "count": 2, "area": [1.0, 1.0], "aspect": [1.0, 1.0]}, "locals": {"count": 0}}


def crops(name, image, step=0, **options):
    table = in_table("augmentation", {"name": name, **WHOLE, **options})
    return [crop.pixels for crop in construct(table, len(image))(Item(image), Stream(0, step))["global"]]


@pytest.fixture
def image():
    return torch.rand(4, 24, 24, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", DOMAINS)
def test_with_everything_off_a_whole_crop_is_the_image(name, image):
    for crop in crops(name, image, **OFF):
        torch.testing.assert_close(crop, image)


@pytest.mark.parametrize("name", DOMAINS)
@pytest.mark.parametrize("channels", [1, 3, 4, 200])
def test_any_channel_count_and_the_same_crops_for_the_same_stream(name, channels):
    image = torch.rand(channels, 30, 26, generator=torch.Generator().manual_seed(1))
    first, again, other = (crops(name, image, step) for step in (3, 3, 4))
    assert all(crop.shape == (channels, 24, 24) and bool(torch.isfinite(crop).all()) for crop in first)
    assert all(torch.equal(a, b) for a, b in zip(first, again)) and not torch.equal(first[0], other[0])


@pytest.mark.parametrize("name", ["ct", "mri", "xray"])
def test_bodies_are_never_flipped(name):
    image = torch.zeros(1, 24, 24)
    image[0, :8, :8] = 1.0  # something at the top left
    for step in range(30):
        for crop in crops(name, image, step, mean=[0.0], std=[1.0], noise=0.0):
            corners = [
                float(crop[0, r, c].mean()) for r in (slice(0, 8), slice(16, 24)) for c in (slice(0, 8), slice(16, 24))
            ]
            assert max(corners) == corners[0]


@pytest.mark.parametrize("name", ["microscopy", "multispectral"])
def test_what_has_no_up_is_seen_in_all_eight_ways(name, image):
    options = {**OFF, "flip": 0.5, "vertical_flip": 0.5, "quarter_turns": True}
    seen = {tuple(crop.flatten().tolist()) for step in range(60) for crop in crops(name, image, step, **options)}
    ways = {tuple(torch.rot90(f, k, (-2, -1)).flatten().tolist()) for f in (image, image.flip(-1)) for k in range(4)}
    assert seen == ways


@pytest.mark.parametrize("name", DOMAINS)
def test_nothing_is_cut_off(name):
    image = 40 * torch.randn(2, 24, 24, generator=torch.Generator().manual_seed(0))  # scores
    strong = {
        "change": 1.0,
        "scale": 0.5,
        "shift": 0.5,
        "noise": 0.0,
        "blur": 0.0,
        "rotate": 0.0,
        "bias": 0.0,
        "mean": [0.0],
        "std": [1.0],
    }
    for crop in crops(name, image, **{**OFF, **strong}):
        assert crop.min() < -40 and crop.max() > 40
        assert len(crop.unique()) == image.numel()  # no two become one at an end


def test_scale_shift_and_gamma_keep_the_order_of_grey_and_are_drawn_a_channel_where_told(image):
    strong = {**OFF, "change": 1.0, "scale": 0.3, "shift": 0.2, "gamma": [0.5, 2.0]}
    same = torch.stack([image[0], image[0]])
    for by_channel in (False, True):
        crop = crops("mri", same, **strong, by_channel=by_channel)[0]
        assert torch.equal(crop[0].flatten().argsort(), image[0].flatten().argsort())
        assert torch.equal(crop[0], crop[1]) is not by_channel


def test_dropped_channels_become_flat_and_one_is_always_left(image):
    for step in range(20):
        crop = crops("microscopy", image, step, **{**OFF, "channel_dropout": 1.0})[0]
        flat = [bool((channel == channel[0, 0]).all()) for channel in crop]
        assert flat.count(False) == 1
        kept = flat.index(False)
        torch.testing.assert_close(crop[kept], image[kept])


def test_switching_one_change_off_moves_no_other(image):
    with_noise, without = (crops("ct", image, 5, **{**OFF, "rotate": 10.0, "noise": noise})[0] for noise in (1.0, 0.0))
    assert 0 < float((with_noise - without).std()) < 0.04  # the same turn, and noise


def test_every_value_of_a_domain_is_in_the_plan(toy):
    table = {"name": "mri", "globals": {"size": 16}, "locals": {"size": 8, "count": 2}}
    plan = api.plan(
        toy(data={"name": "planes", "split": None}, augmentation=None) | {"augmentation": table}, plugins=[planes]
    )
    values = {value.key: value.value for value in plan.values}
    assert (
        values["augmentation.bias"] == 0.5
        and values["augmentation.gamma"] == [0.7, 1.5]
        and values["augmentation.flip"] == 0.0
    )
    assert values["augmentation.globals.area"] == [0.4, 1.0] and [view.count for view in plan.views] == [2, 2]


def test_turned_crops_cannot_have_a_gram_twin(toy):
    table = {"name": "ct", "globals": {"size": 16}, "locals": {"size": 8, "count": 2}, "gram": {"size": 32}}
    with pytest.raises(
        ConfigError, match="augmentation.rotate: turns the global crops, but the Gram teacher's stay as they are; set 0"
    ):
        api.plan(
            toy(data={"name": "planes", "split": None}, augmentation=None) | {"augmentation": table}, plugins=[planes]
        )
