"""An intensity has to fit the numbers of every source, not only those of all together."""

import attrs
import numpy as np
import PIL.Image
import pytest

from dinomx_core import ConfigError, api
from dinomx_core.builtin.data_options import FullRange, check_full_range
from dinomx_core.declare.facts import DataInfo, Draft
from dinomx_core.declare.reading import Sampled

CRUSHED = (
    "pixels (uint16) from 0 to 4000, of the images that were looked at, would be crushed into 0..0.061; set range = [0, 4095] if "
    "they are 12-bit ones, or [0, 65535] if that is meant, or take another intensity"
)


@pytest.fixture
def folders(tmp_path):
    """Grey images of 8, 12 and 16 bits."""
    for name, kind, high in (("eight", np.uint8, 255), ("twelve", np.uint16, 4000), ("sixteen", np.uint16, 65535)):
        (tmp_path / name).mkdir()
        for number in range(4):
            pixels = np.linspace(0, high, 32 * 32).reshape(32, 32).astype(kind)
            PIL.Image.fromarray(np.roll(pixels, number)).save(tmp_path / name / f"{number}.png")
    return tmp_path


def folder(path):
    return {"name": "image-folder", "path": str(path), "channels": 1}


def plan(data, **tables):
    run = {"steps": 2, "batch_size": 2, "out": "unused"}
    return api.plan(
        {"recipe": "dinov1-small", "run": run, "data": data, "augmentation": {"mean": [0.5], "std": [0.25]}, **tables}
    )


@pytest.mark.parametrize("other", ["eight", "sixteen"])
def test_a_source_that_would_be_crushed_is_named(folders, other):
    with pytest.raises(ConfigError) as raised:
        plan({"name": "mix", "sources": {"a": folder(folders / other), "b": folder(folders / "twelve")}})
    assert str(raised.value) == f"config: intensity.range: data.sources.b: {CRUSHED}"


def test_what_is_evaluated_is_looked_at_too(folders):
    knn = {"knn": {"every": 1, "bank": folder(folders / "sixteen"), "query": folder(folders / "twelve")}}
    with pytest.raises(ConfigError) as raised:
        plan(folder(folders / "sixteen"), evaluate=knn)
    assert f"config: intensity.range: evaluate.knn.query: {CRUSHED}" in str(raised.value).splitlines()


def test_sources_that_all_fit_are_taken(folders):
    assert (
        plan({"name": "mix", "sources": {"a": folder(folders / "eight"), "b": folder(folders / "sixteen")}}).data.count
        == 8
    )


def test_numbers_in_a_corner_of_the_range_that_files_declare_are_refused():
    crushed = Sampled("int32", -1000, 1500, "HU", (-33792, 31743))
    draft = Draft(DataInfo(4, 1, sampled=crushed), (), None, 2, 2)
    assert check_full_range(FullRange(), draft) == [
        (
            "range",
            "pixels (int32) from -1000 to 1500 HU, of the images that were looked at, would be crushed into 0.5..0.54 of what their files "
            "declare, -33792 to 31743; give a narrower range, or take another intensity (window, percentiles)",
        )
    ]
    assert check_full_range(FullRange([-1000, 2000]), draft) == []
    for fine in (Sampled("int16", -1000, 1500, "HU", (-1024, 3071)), Sampled("uint8", 0, 9, "", (0, 255))):
        assert check_full_range(FullRange(), attrs.evolve(draft, data=DataInfo(4, 1, sampled=fine))) == []
