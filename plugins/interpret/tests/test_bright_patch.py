"""The heat of a pixel lands on that pixel: one bright patch, in drawn files, on images that are not square, with and without registers."""

import numpy as np
import pytest
from PIL import Image

from dinomx_interpret import explain
from tests.bright import MADE, PATCH, save_bright

HEIGHT, WIDTH = 40, 72


def with_bright_patch(file, row, column, channels=3):
    image = np.full((HEIGHT, WIDTH, channels), 60, np.uint8)
    image[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] = 250
    np.save(file, image) if file.suffix == ".npy" else Image.fromarray(image).save(file)
    return file


def hottest(file):
    """Rows and columns (first and one past the last) of the brightest pixels of a drawn map, in patches, and its size in pixels."""
    red, green, blue = np.asarray(Image.open(file).convert("RGB")).astype(float).transpose(2, 0, 1)
    light = 0.299 * red + 0.587 * green + 0.114 * blue  # both colour maps grow brighter all the way
    rows, columns = np.nonzero(light == light.max())
    side = light.shape[0] * PATCH // HEIGHT
    ends = (rows.min() / side, (rows.max() + 1) / side, columns.min() / side, (columns.max() + 1) / side)
    assert len(rows) == side * side, "more than one patch is brightest"
    return ends


@pytest.mark.parametrize(("row", "column"), [(1, 7), (4, 0)])
@pytest.mark.parametrize("family", MADE)
def test_heat_lands_on_the_pixels_that_are_bright(tmp_path, family, row, column):
    model = save_bright(tmp_path / "model", family)
    image = with_bright_patch(tmp_path / "image.png", row, column)
    explain(model, image, out=tmp_path / "out", size=(HEIGHT, WIDTH), clusters=2)
    drawn = tmp_path / "out" / "01-image"
    expected = (row, row + 1, column, column + 1)
    names = {"attention-mean", "attention-head-1", "rollout", *(p.stem for p in drawn.glob("register-*.png"))}
    assert len(names) == 3 + {"registers": 3, "dinov3": 2}.get(family, 0)
    for name in names:
        assert hottest(drawn / f"{name}.png") == expected, name
    seen = np.asarray(Image.open(drawn / "image.png").convert("L"))
    assert seen.shape == np.asarray(Image.open(drawn / "rollout.png").convert("L")).shape
    assert seen[round((row + 0.5) * seen.shape[0] / 5), round((column + 0.5) * seen.shape[1] / 9)] == 250


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_heat_lands_there_with_any_number_of_channels(tmp_path, channels):
    model = save_bright(tmp_path / "model", "registers", channels)
    image = with_bright_patch(tmp_path / "image.npy", 3, 2, channels)
    explain(model, image, out=tmp_path / "out", size=(HEIGHT, WIDTH), clusters=2)
    assert hottest(tmp_path / "out" / "01-image" / "attention-mean.png") == (3, 4, 2, 3)


def test_the_bright_patch_is_like_no_other_and_a_cluster_of_its_own(tmp_path):
    model = save_bright(tmp_path / "model", "dinov3")
    image = with_bright_patch(tmp_path / "image.png", 2, 6)
    explain(model, image, out=tmp_path / "out", size=(HEIGHT, WIDTH), clusters=2, patch=(2, 6))
    drawn = tmp_path / "out" / "01-image"
    clusters = np.asarray(Image.open(drawn / "clusters.png"))
    side = clusters.shape[0] // 5
    own = clusters[2 * side : 3 * side, 6 * side : 7 * side].reshape(-1, 3)
    assert len(np.unique(own, axis=0)) == 1
    assert (clusters == own[0]).all(-1).sum() == side * side
    similar = np.asarray(Image.open(drawn / "similarity.png"))
    inside = similar[2 * side + 2 : 3 * side - 2, 6 * side + 2 : 7 * side - 2].reshape(-1, 3)
    assert inside.tolist() == [[253, 231, 37]] * len(inside)  # viridis's last colour
    assert similar[4 * side, 4 * side].tolist() == [68, 1, 84]  # and its first
