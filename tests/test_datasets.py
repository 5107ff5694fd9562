import os

import pytest
import torch

from dinomx_core import DataError
from dinomx_core.builtin.digits import DigitsData
from dinomx_core.builtin.image_folder import ImageFolderData
from dinomx_core.builtin.listing import list_images
from dinomx_core.builtin.plugin import Digits, ImageFolder, count_digits, count_files


def test_digits_are_counted_as_they_are_and_split_without_overlap():
    sets = {split: DigitsData(Digits(split)) for split in ("train", "test", "all")}
    for split, data in sets.items():
        assert count_digits(Digits(split)).count == len(data)
    assert not {item.id for item in sets["train"]} & {item.id for item in sets["test"]}
    image = sets["all"][0].image
    assert (image.shape, image.dtype, int(image.max())) == ((1, 8, 8), torch.uint8, 239)


def test_class_folders_are_labels(image_folder):
    options = ImageFolder(str(image_folder))
    data = ImageFolderData(options)
    assert count_files(options).classes == ("cats", "dogs")
    assert [data[i].label for i in (0, 5, 6, 11)] == [0, 0, 1, 1]
    assert data[7].id == "dogs/1.png" and data[7].image.shape == (3, 30, 40)


def test_flat_nested_linked_and_foreign_files(image_folder, tmp_path):
    flat = list_images(str(image_folder / "cats"))
    assert flat.classes == () and set(flat.labels) == {-1}
    (image_folder / "dogs" / "deep").mkdir()
    os.symlink(image_folder / "cats" / "0.png", image_folder / "dogs" / "deep" / "link.JPG")
    os.symlink(image_folder, image_folder / "dogs" / "loop")
    (image_folder / "dogs" / "notes.txt").write_text("x")
    (image_folder / ".cache.png").write_text("x")
    found = list_images(str(image_folder))
    assert "dogs/deep/link.JPG" in found.files and len(found.files) == 14
    assert found.notes == ("1 files of other kinds are left out",)


def test_missing_empty_and_file_paths_are_refused(tmp_path):
    with pytest.raises(DataError, match="there is no folder"):
        list_images(str(tmp_path / "none"))
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="is a file; name the folder"):
        list_images(str(tmp_path / "a.txt"))
    with pytest.raises(DataError, match="no images in .* 1 files of other kinds are there"):
        list_images(str(tmp_path))
