"""Crops and pixel operations against independent definitions."""

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image

from dinomx_core import DataError
from dinomx_core.builtin.crops import Crops, MultiCrop
from dinomx_core.builtin.data_options import FullRange, ImageFiles
from dinomx_core.builtin.full_range import FullRangeIntensity
from dinomx_core.builtin.image_reader import ImageReader
from dinomx_core.builtin.multicrop import MultiCropAugmentation, draw_box
from dinomx_core.training import pixels as px
from dinomx_core.training.flow import Item
from dinomx_core.training.images import from_plane, to_channels
from dinomx_core.training.streams import Stream

PLAIN = {"flip": 0.0, "jitter": 0.0, "grey": 0.0, "blur": [0.0]}


@pytest.fixture
def photo():
    ramp = np.linspace(0, 255, 40 * 30 * 3).reshape(40, 30, 3)
    noise = np.random.default_rng(0).integers(0, 60, (40, 30, 3))
    return torch.from_numpy(np.clip(ramp + noise, 0, 255).astype(np.uint8)).permute(2, 0, 1).contiguous()


def test_boxes_have_the_asked_area_and_aspect_and_lie_inside():
    from random import Random

    rng, crops = Random(0), Crops(count=1, size=8, area=[0.1, 0.4])
    boxes = np.array([draw_box(rng, 300, 400, crops) for _ in range(2000)])
    top, left, height, width = boxes.T
    share, aspect = height * width / (300 * 400), width / height
    assert (top >= 0).all() and (left >= 0).all() and (top + height <= 300).all() and (left + width <= 400).all()
    assert 0.095 < share.min() < 0.12 and 0.38 < share.max() < 0.41 and abs(share.mean() - 0.25) < 0.01
    assert 0.74 < aspect.min() < 0.78 and 1.28 < aspect.max() < 1.36


def test_a_narrow_image_gets_the_largest_centred_box():
    from random import Random

    assert draw_box(Random(0), 10, 1000, Crops(count=1, size=8, area=[1.0, 1.0])) == (0, 493, 10, 13)


def test_resize_is_that_of_pillow(photo):
    ours = px.resize(photo, (16, 12)).permute(1, 2, 0).numpy().astype(int)
    theirs = np.asarray(
        Image.fromarray(photo.permute(1, 2, 0).numpy()).resize((12, 16), Image.Resampling.BICUBIC)
    ).astype(int)
    assert np.abs(ours - theirs).max() <= 1


def test_sixteen_bits_keep_their_range():
    image = torch.linspace(0, 65535, 64).to(torch.uint16).view(1, 8, 8)
    assert px.to_float(image).max() == 1.0
    assert px.resize(image, (4, 4)).dtype == torch.float32
    assert float(px.resize(image, (4, 4)).max()) > 0.9


def test_hue_is_that_of_colorsys(photo):
    image = px.to_float(photo)[:, ::4, ::4]
    ours = px.hue(image, 0.3)
    for y in range(image.shape[1]):
        for x in range(image.shape[2]):
            h, s, v = colorsys.rgb_to_hsv(*image[:, y, x].tolist())
            assert ours[:, y, x].tolist() == pytest.approx(colorsys.hsv_to_rgb((h + 0.3) % 1, s, v), abs=1e-5)


def test_brightness_contrast_saturation_have_their_fixed_points(photo):
    image = px.to_float(photo)
    for operation in (px.brightness, px.contrast, px.saturation):
        torch.testing.assert_close(operation(image, 1.0), image)
    assert float(px.brightness(image, 0.0).max()) == 0
    torch.testing.assert_close(px.saturation(image, 0.0), px.grey(image).expand(3, -1, -1))
    assert float(px.contrast(image, 0.0).std()) == pytest.approx(0, abs=1e-6)


def test_solarize_inverts_what_is_bright():
    assert px.solarize(torch.tensor([0.2, 0.5, 0.9])).tolist() == pytest.approx([0.2, 0.5, 0.1])


def test_blur_is_scipys_gaussian(photo):
    from scipy.ndimage import gaussian_filter

    image = px.to_float(photo)
    ours = px.blur(image, 1.3)
    theirs = np.stack([gaussian_filter(channel, 1.3, mode="mirror", truncate=3.0) for channel in image.numpy()])
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 200])
def test_any_channel_count(channels):
    options = MultiCrop(globals=Crops(count=2, size=16, area=[0.4, 1.0]), mean=[0.5], std=[0.25])
    augment = MultiCropAugmentation(options, channels)
    image = torch.randint(0, 256, (channels, 20, 24), dtype=torch.uint8)
    crops = augment(Item(image), Stream(0, 1))["global"]
    assert [crop.pixels.shape for crop in crops] == [(channels, 16, 16)] * 2
    assert crops[0].pixels.dtype == torch.float32


def test_flip_mirrors_and_the_box_says_so(photo):
    crops = {
        name: Crops(count=1, size=8, area=[0.5, 0.5], **{**PLAIN, **change})
        for name, change in (("no", {}), ("yes", {"flip": 1.0}))
    }
    made = {
        name: MultiCropAugmentation(MultiCrop(globals=c), 3)(Item(photo), Stream(3))["global"][0]
        for name, c in crops.items()
    }
    torch.testing.assert_close(made["yes"].pixels.flip(-1), made["no"].pixels)
    assert made["yes"].box[3] == -made["no"].box[3] < 0


def test_switching_one_operation_off_moves_no_other(photo):
    made = []
    for grey in (0.0, 1.0):
        crops = Crops(count=1, size=8, area=[0.3, 0.9], grey=grey, jitter=0.0, blur=[1.0])
        made.append(
            MultiCropAugmentation(MultiCrop(globals=crops, mean=[0.0], std=[1.0]), 3)(Item(photo), Stream(5))["global"][
                0
            ]
        )
    assert made[0].box == made[1].box
    torch.testing.assert_close(px.grey(made[0].pixels).expand(3, -1, -1), made[1].pixels, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("mode", "channels", "dtype"), [("L", 1, torch.uint8), ("RGB", 3, torch.uint8), ("RGBA", 3, torch.uint8), ("P", 3, torch.uint8), ("1", 1, torch.uint8), ("I;16", 1, torch.uint16), ("F", 1, torch.float32)])  # fmt: skip
def test_files_are_read_in_their_own_depth(tmp_path, mode, channels, dtype):
    if mode == "I;16":
        image = Image.fromarray(np.full((4, 6), 40000, np.uint16))
    else:
        image = Image.new(mode, (6, 4), 1 if mode in ("1", "F") else None)
    file = tmp_path / ("x.tiff" if mode in ("F", "I;16") else "x.png")
    image.save(file)
    read = from_plane(ImageReader(ImageFiles()).read(file))
    assert (read.shape, read.dtype) == ((channels, 4, 6), dtype)
    if mode == "I;16":
        assert int(read.int().max()) == 40000


def test_grey_and_colour_are_mixed_by_rule(photo):
    grey = to_channels(photo, 1)
    assert grey.shape == (1, 40, 30) and grey.dtype == torch.uint8
    assert torch.equal(to_channels(grey, 3)[0], to_channels(grey, 3)[2])
    with pytest.raises(DataError, match="an image of 2 channels cannot become one of 3"):
        to_channels(photo[:2], 3)


def test_wide_pixels_without_a_range_are_refused_and_sixteen_bit_crops_flip(tmp_path):
    for mode, array in (("i", np.full((4, 4), 70000, np.int32)), ("f", np.full((4, 4), 4000, np.float32))):
        Image.fromarray(array).save(tmp_path / f"{mode}.tiff")
        item = Item(from_plane(ImageReader(ImageFiles()).read(tmp_path / f"{mode}.tiff")))
        with pytest.raises(
            DataError, match=f"pixels from {array[0, 0]:.0f} to {array[0, 0]:.0f} are outside 0..1; say what they mean"
        ):
            FullRangeIntensity(FullRange())(item)
        assert float(FullRangeIntensity(FullRange([0, 80000]))(item).image.max()) == pytest.approx(array[0, 0] / 80000)
    image = torch.full((1, 8, 8), 40000, dtype=torch.int32).to(torch.uint16)
    crops = Crops(count=1, size=8, area=[1.0, 1.0], aspect=[1.0, 1.0], **{**PLAIN, "flip": 1.0})
    made = MultiCropAugmentation(MultiCrop(globals=crops, mean=[0.0], std=[1.0]), 1)(Item(image), Stream(0))["global"][
        0
    ]
    torch.testing.assert_close(made.pixels, torch.full((1, 8, 8), 40000 / 65535))
