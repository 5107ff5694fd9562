"""Which kind of backbone reads the weights of a network of any kind."""

import json

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from dinomx_core import DataError, OtherFamily, PluginError
from dinomx_core.declare.discover import discover
from dinomx_core.declare.facts import Frozen
from dinomx_core.planning.foreign import reader_of
from dinomx_core.planning.origin import readers, source_of
from tests import toy_readers

REGISTRY = discover([toy_readers])


def source(weights, channels=3, registry=REGISTRY):
    """What a foreign network comes from."""
    return source_of(Frozen("other", str(weights), foreign=True), None, channels, 32, registry)


@pytest.fixture
def saved(tmp_path):
    """A function of config.json -> a folder with it alone."""

    def make(**config):
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "config.json").write_text(json.dumps(config))
        return tmp_path / "model"

    return make


def test_a_family_that_others_do_not_know_is_read_by_the_one_that_does(saved):
    folder = saved(model_type="toy", num_channels=3, width=24)
    for channels in (3, 1):
        origin = source(folder, channels)
        assert (origin.chosen.label, origin.backbone.width, origin.channels) == ("plain", 24, 3)


def test_a_file_of_a_layout_that_others_do_not_know_is_read_by_the_one_that_does(tmp_path):
    save_file({"toy.weight": torch.zeros(2)}, tmp_path / "toy.safetensors")
    assert source(tmp_path / "toy.safetensors").chosen.label == "plain"
    with pytest.raises(OtherFamily, match="not the layout of DINO, DINOv2, DINOv3 or timm; it holds toy.weight"):
        source(tmp_path / "toy.safetensors", registry=discover())


def test_readers_are_the_general_ones_first_without_those_that_have_to_be_told_more():
    labels = [reader.label for reader in readers(REGISTRY)]
    assert labels[0] == "hf"
    assert "plain" in labels and "needy" not in labels


def test_of_a_family_that_nobody_reads_the_general_reader_tells(saved):
    folder = saved(model_type="nobodys", num_channels=3)
    with pytest.raises(OtherFamily, match='holds a model of type "nobodys", of which DINO-MX does not know how to'):
        source(folder)


BROKEN = """
import attrs
from dinomx_core import Backbone, hookimpl

@attrs.frozen
class Net:
    '''A net.'''

@hookimpl
def dinomx_backbones():
    yield Backbone("aaa", Net, "a:b", shape=len, from_weights=lambda options, weights: {}, general=True)
"""
AUTHOR = "; tell the author of dinomx-bad, or remove it: pip uninstall dinomx-bad"


@pytest.mark.parametrize(
    ("way", "told"),
    [
        ("options.wish", "its function `from_weights` failed: AttributeError: 'Net' object has no attribute 'wish'"),
        (
            "open('/not/there')",
            "cannot look at {}: FileNotFoundError: [Errno 2] No such file or directory: '/not/there'",
        ),
    ],
)
def test_a_broken_backbone_that_nobody_picked_spoils_no_reading(saved, install, way, told):
    folder = saved(model_type="toy", num_channels=3, width=24)
    install("bad", BROKEN.format(way))
    registry = discover([toy_readers])
    labels = [reader.label for reader in readers(registry)]
    assert labels.index("aaa") < labels.index("plain")
    assert source(folder, registry=registry).chosen.label == "plain"
    assert reader_of(folder, registry, 32)[0].label == "plain"
    (folder / "config.json").write_text('{"model_type": "nobodys", "num_channels": 3}')
    for read in (lambda: source(folder, registry=registry), lambda: reader_of(folder, registry, 32)):
        with pytest.raises(PluginError) as caught:
            read()
        said = str(caught.value)
        assert said.startswith(f'backbone "aaa" of dinomx-bad: {told.format(folder)} (') and said.endswith(AUTHOR)


def test_other_channels_are_told_by_the_reader_of_the_family(saved):
    folder = saved(model_type="toy", num_channels=4, width=24)
    for channels in (1, 3):
        message = f"^{folder}: made for 4 channels, the data have {channels}; take a model that was made for them, or for RGB where"
        with pytest.raises(DataError, match=message):
            source(folder, channels)


def test_an_id_that_is_not_found_is_looked_up_once(monkeypatch):
    asked = []

    def offline(name, **_):
        asked.append(name)
        raise OSError("no such model")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(DataError, match='no folder or file "some/model".*no such model in the cache or on the hub'):
        source("some/model", 1)
    assert asked == ["some/model"]
