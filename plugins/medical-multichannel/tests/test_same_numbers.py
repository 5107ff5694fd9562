"""What is done for speed changes no number, and no pixels that were read."""

import math

import numpy as np
import pytest
import tifffile
import torch
from monai.data.meta_obj import get_track_meta
from monai.transforms import AdjustContrast, Rotate

from dinomx_core import DataError
from dinomx_core.training.flow import Item
from dinomx_core.training.streams import Stream
from dinomx_medical_multichannel.augmentation import DomainAugmentation, untracked
from dinomx_medical_multichannel.domains import Mri
from dinomx_medical_multichannel.intensities import PercentilesIntensity, WindowIntensity, declared, nearest
from dinomx_medical_multichannel.numbers import Declared, Percentiles, Window
from dinomx_medical_multichannel.plugin import Tiff
from dinomx_medical_multichannel.tiff import TiffReader

PIXELS = torch.rand(1, 30, 40, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("change", [AdjustContrast(1.3), Rotate(math.radians(7), padding_mode="border")])
def test_monai_makes_the_same_pixels_untracked(change):
    tracked = change(PIXELS).as_tensor()
    with untracked():
        assert not get_track_meta()
        plain = change(PIXELS)
    assert get_track_meta()
    assert type(plain) is torch.Tensor
    assert torch.equal(plain, tracked)


def test_tracking_is_as_it_was_after_an_error():
    with pytest.raises(KeyError), untracked():
        raise KeyError
    assert get_track_meta()


def test_crops_are_plain_tensors():
    options = Mri(rotate=10.0, bias=1.0, change=1.0)
    views = DomainAugmentation(options, 1)(Item(PIXELS), Stream(0, 0))
    assert {type(crop.pixels) for crops in views.values() for crop in crops} == {torch.Tensor}


@pytest.mark.parametrize("count", [1, 2, 1000])
@pytest.mark.parametrize("shares", [[0.005, 0.995], [0.0, 1.0], [0.5, 0.5]])
def test_ranks_are_those_of_sorted_pixels(count, shares):
    values = torch.randn(count, generator=torch.Generator().manual_seed(count))
    ordered = values.sort().values
    assert nearest(values, shares) == [float(ordered[round(share * (count - 1))]) for share in shares]


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(wrong):
    image = PIXELS.clone()
    image[0, 3, 4] = wrong
    with pytest.raises(DataError) as told:
        declared(Item(image), Declared())
    assert str(told.value) == "holds pixels that are not finite numbers"


@pytest.mark.parametrize(
    "intensity",
    [PercentilesIntensity(Percentiles()), WindowIntensity(Window(ranges=[[0.2, 0.8], [0.0, 1.0]]))],
    ids=["percentiles", "window"],
)
def test_the_pixels_that_were_read_stay_as_they_were(intensity):
    image = PIXELS.clone()
    assert not torch.equal(intensity(Item(image)).image[:1], PIXELS)
    assert torch.equal(image, PIXELS)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize(
    ("how", "expected"), [({"tile": (32, 48)}, 6), ({"rowsperstrip": 16, "compression": "zlib"}, 4)]
)
def test_a_region_looks_at_the_segments_under_it_alone(tmp_path, monkeypatch, planar, how, expected):
    image = np.random.default_rng(0).integers(0, 60000, (3, 300, 400), dtype=np.uint16)
    written = image if planar == "separate" else image.transpose(1, 2, 0)
    tifffile.imwrite(tmp_path / "x.tif", written, photometric="rgb", planarconfig=planar, **how)
    looked = []
    decode = tifffile.TiffPage.decode
    monkeypatch.setattr(
        tifffile.TiffPage,
        "decode",
        property(
            lambda page: (
                lambda data, number, **more: looked.append(number) or decode.__get__(page)(data, number, **more)
            )
        ),
    )
    region = TiffReader(Tiff()).read(tmp_path / "x.tif", 0, (90, 40, 40, 50)).pixels
    assert np.array_equal(region, image[:, 90:130, 40:90])
    assert len(set(looked)) == expected * (3 if planar == "separate" else 1)
