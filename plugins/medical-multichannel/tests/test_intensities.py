"""What numbers of an image mean: windows, percentiles, z-scores, logarithms, and what the plan refuses."""

import json

import numpy as np
import pytest
import torch
from monai.transforms import NormalizeIntensity, ScaleIntensityRange, ScaleIntensityRangePercentiles

from dinomx_core import ConfigError, DataError, api
from dinomx_core.training.construct import construct
from dinomx_core.training.flow import Item
from dinomx_medical_multichannel.numbers import WINDOWS
from tests import flat_files
from tests.fixtures import in_table


def made(**table):
    return construct(in_table("intensity", table))


def item(values, **about):
    return Item(torch.as_tensor(np.asarray(values, np.float32)).view(1, 2, -1), id="a", **about)


@pytest.fixture
def ct():
    """(1, 32, 32) in HU."""
    return torch.linspace(-1024, 3071, 1024).view(1, 32, 32)


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_are_monais_scaling_by_centre_and_width(ct, name):
    centre, width = WINDOWS[name]
    low, high = centre - width / 2, centre + width / 2
    theirs = ScaleIntensityRange(low, high, 0, 1, clip=True)(ct)
    torch.testing.assert_close(made(name="window", windows=[name])(Item(ct, units="HU")).image, torch.as_tensor(theirs))


def test_several_windows_are_channels_and_shifted_numbers_are_moved_back(ct):
    seen = made(name="window", windows=["lung", "bone"], ranges=[[-160.0, 240.0]])(Item(ct, units="HU")).image
    assert seen.shape == (3, 32, 32)
    for channel, bounds in zip(seen, ((-1350, 150), (-500, 1500), (-160, 240))):
        torch.testing.assert_close(channel, ((ct[0] - bounds[0]) / (bounds[1] - bounds[0])).clamp(0, 1))
    stored = (ct.round() + 32768).to(torch.int32).to(torch.uint16)
    shifted = made(name="window", windows=["lung"], intercept=-32768.0, units="HU")(Item(stored)).image
    torch.testing.assert_close(shifted, made(name="window", windows=["lung"])(Item(ct.round(), units="HU")).image)


def test_images_of_other_units_are_refused_one_by_one(ct):
    for units, message in (
        ("", "its numbers have no units, and the windows are in HU"),
        ("OD", "its numbers are OD, and"),
    ):
        with pytest.raises(DataError, match=message):
            made(name="window", windows=["lung"])(Item(ct, units=units))
    with pytest.raises(DataError, match="the file says that its numbers are OD, not HU"):
        made(name="window", windows=["lung"], units="HU")(Item(ct, units="OD"))


def test_percentiles_are_monais_a_channel_and_of_what_counts():
    image = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 10.0, 4000.0]).view(
        3, 1, 1
    )
    ours = made(name="percentiles", percentiles=[1.0, 99.0])(Item(image)).image
    theirs = ScaleIntensityRangePercentiles(1, 99, 0, 1, clip=True, channel_wise=True)(image)
    torch.testing.assert_close(ours, torch.as_tensor(theirs), atol=2e-3, rtol=0)
    together = made(name="percentiles", percentiles=[0.0, 100.0], by_channel=False)(Item(image)).image
    torch.testing.assert_close(together, (image - image.min()) / (image.max() - image.min()))
    background = torch.zeros(1, 10, 10)
    background[0, :2] = torch.linspace(100, 200, 20).view(2, 10)
    counted = made(name="percentiles", percentiles=[0.0, 100.0], above=0.0)(Item(background)).image
    torch.testing.assert_close(counted[0, :2].flatten(), torch.linspace(0, 1, 20), atol=1e-5, rtol=0)
    assert float(counted[0, 2:].max()) == 0
    for empty in (torch.zeros(1, 4, 4), torch.full((2, 4, 4), 7.0)):
        flat = made(name="percentiles", above=0.0)(Item(empty)).image
        assert float(flat.min()) >= 0 and float(flat.max()) <= 1 and bool(torch.isfinite(flat).all())


def test_twelve_bits_keep_their_range():
    image = torch.arange(4096, dtype=torch.int32).view(1, 64, 64).to(torch.uint16)
    for table in ({"name": "full-range", "range": [0, 4095]}, {"name": "percentiles", "percentiles": [0.0, 100.0]}):
        seen = made(**table)(Item(image)).image
        assert len(seen.unique()) == 4096 and float(seen.min()) == 0 and float(seen.max()) == 1
    declared = made(name="full-range")(Item(image, full=(0.0, 4095.0))).image
    torch.testing.assert_close(declared, image.float() / 4095)


def test_z_scores_are_monais_by_channel_and_nothing_is_cut():
    image = torch.randn(2, 20, 20, generator=torch.Generator().manual_seed(0)) * 50 + 300
    torch.testing.assert_close(
        made(name="z-score")(Item(image)).image, torch.as_tensor(NormalizeIntensity(channel_wise=True)(image))
    )
    whole = made(name="z-score", by_channel=False)(Item(image)).image
    torch.testing.assert_close(whole, torch.as_tensor(NormalizeIntensity()(image)))
    given = made(name="z-score", of="given", mean=[300.0], std=[50.0, 25.0])(Item(image)).image
    torch.testing.assert_close(given, (image - 300) / torch.tensor([50.0, 25.0]).view(2, 1, 1))
    assert float(made(name="z-score")(Item(torch.full((1, 4, 4), 5.0))).image.abs().max()) == 0


def test_a_groups_statistics_are_its_own(tmp_path):
    groups = {
        "plate1": {"count": 9, "mean": [10.0], "std": [2.0]},
        "plate2": {"count": 9, "mean": [100.0], "std": [20.0]},
    }
    (tmp_path / "s.json").write_text(json.dumps({"groups": groups}))
    score = made(name="z-score", of="group", statistics=str(tmp_path / "s.json"))
    assert score(item([10, 12, 14, 8], group="plate1")).image.flatten().tolist() == [0, 1, 2, -1]
    assert score(item([100, 120, 140, 80], group="plate2")).image.flatten().tolist() == [0, 1, 2, -1]
    with pytest.raises(DataError, match=r'is of the group "plate3", which .*s.json does not have; measure it again'):
        score(item([1, 2, 3, 4], group="plate3"))
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(DataError, match="bad.json: holds no statistics of groups"):
        made(name="z-score", of="group", statistics=str(tmp_path / "bad.json"))


def test_logarithms_keep_nought_and_the_highest():
    seen = made(name="log", high=1023.0, scale=1.0)(item([0, 1, 31, 1023])).image.flatten()
    torch.testing.assert_close(seen, torch.tensor([0.0, 0.1, 0.5, 1.0]))
    with pytest.raises(
        DataError, match="holds numbers from 0 to 2000, and the logarithm takes 0 to 1023; raise intensity.high"
    ):
        made(name="log", high=1023.0)(item([0, 1, 31, 2000]))


@pytest.mark.parametrize("table", [{"name": "window", "ranges": [[0.0, 1.0]]}, {"name": "percentiles"}, {"name": "z-score"}, {"name": "log", "high": 9.0}, {"name": "full-range"}])  # fmt: skip
def test_numbers_that_are_none_are_refused(table):
    for bad in (float("nan"), float("inf")):
        with pytest.raises(DataError):
            made(**table)(item([0.5, bad, 0.2, 0.1]))


# What the plan refuses -------------------------------------------------------------------------------------------------


@pytest.fixture
def planned(toy, tmp_path):
    """Plan a folder of images of given numbers under an intensity; returns the plan, or what it says."""

    def plan(array, intensity, hu=False, **changes):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for number in range(2):
            if hu:
                flat_files.write(folder / f"{number}.flat", array)
            else:
                np.save(folder / f"{number}.npy", array)
        data = {"name": "image-folder", "path": str(folder), "split": None, "channels": 1}
        if hu:
            data["reader"] = {"name": "flat"}
        config = toy(run={"batch_size": 2, "steps": 1}, data=data, intensity=intensity, **changes)
        try:
            return api.plan(config, plugins=[flat_files])
        except ConfigError as error:
            return str(error)

    return plan


FLOATS = np.linspace(0, 4000, 400, dtype=np.float32).reshape(20, 20)
NAMES = ", ".join(WINDOWS)


def test_windows_need_units(planned):
    assert planned(FLOATS, {"name": "window", "windows": ["lung"]}) == (
        'config: intensity.windows: are in HU, but the numbers have no units that the files tell; say units = "HU" (with slope and intercept '
        "where they are shifted) if they are, or give ranges in the numbers' own units"
    )
    assert planned(FLOATS, {"name": "window", "windows": ["bone"], "units": "HU"}).data.channels == 1
    assert planned(FLOATS, {"name": "window", "ranges": [[0.0, 400.0], [0.0, 4000.0]]}).data.channels == 2
    assert planned(FLOATS, {"name": "window", "windows": ["bone"]}, hu=True).data.channels == 1
    assert "intensity.units: the files say themselves that their numbers are HU; leave out units" in planned(
        FLOATS, {"name": "window", "windows": ["bone"], "units": "HU"}, hu=True
    )
    assert planned(FLOATS, {"name": "window"}) == f"config: intensity.windows: name some ({NAMES}), or give ranges"
    assert planned(FLOATS, {"name": "window", "windows": ["thorax"]}) == (
        f'config: intensity.windows: "thorax" is no window; known: {NAMES}; others: give ranges'
    )
    assert planned(FLOATS, {"name": "window", "ranges": [[-900.0, -100.0]]}) == (
        "config: intensity.ranges: -900 to -100 leaves nothing to see of numbers from 0 to 4000"
    )


def test_numbers_without_a_range_and_those_that_would_be_crushed_are_refused(planned):
    assert planned(FLOATS, {"name": "full-range"}) == (
        "config: intensity.range: pixels (float32) from 0 to 4000 have no declared range; give it, or take another intensity (window, "
        "percentiles)"
    )
    assert planned(FLOATS.astype(np.uint16), {"name": "full-range"}) == (
        "config: intensity.range: pixels (uint16) from 0 to 4000, of the images that were looked at, would be crushed into 0..0.061; set "
        "range = [0, 4095] if they are 12-bit ones, or [0, 65535] if that is meant, or take another intensity"
    )
    assert planned(FLOATS.astype(np.uint16), {"name": "full-range", "range": [0, 65535]}).data.channels == 1
    assert planned(FLOATS, {"name": "full-range"}, hu=True).data.channels == 1  # the files say their range
    assert planned(FLOATS, {"name": "log", "high": 1000.0}) == (
        "config: intensity.high: 1000, but the numbers go from 0 to 4000; it takes 0 to high"
    )
    given = {"name": "z-score", "of": "given", "mean": [1.0, 2.0], "std": [1.0]}
    assert 'config: intensity.mean: of = "given" needs one number, got 2' in planned(FLOATS, given)
    by_group = planned(FLOATS, {"name": "z-score", "of": "group"})
    assert 'config: intensity.statistics: of = "group" needs a file of statistics' in by_group


def test_scores_need_an_augmentation_that_takes_them(planned):
    message = planned(FLOATS, {"name": "z-score"})
    assert message == (
        'config: augmentation: its changes of colour are for pixels over 0..1, and the intensity "z-score" gives others; take a domain\'s '
        "augmentation (ct, mri, microscopy), or set jitter = 0.0 and solarize = [0.0]"
    )
    crops = {"globals": {"size": 16}, "locals": {"size": 8, "count": 2}}
    fitting = planned(FLOATS, {"name": "z-score"}, augmentation=None)
    assert "augmentation" in fitting  # none is given at all
    plan = planned(FLOATS, {"name": "z-score"}, augmentation={"name": "mri", "mean": [0.0], "std": [1.0], **crops})
    assert plan.spec.augmentation.component.name == "mri"
