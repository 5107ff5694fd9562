"""Words of other tools point to ours, and every one of ours is there."""

import re

import attrs
import pytest
import tomli

from dinomx_core import ConfigError, api
from dinomx_core.builtin.crops import Crops
from dinomx_core.declare.discover import discover
from dinomx_core.planning.convert import make_converter
from dinomx_core.planning.spec import LABELLED, SECTIONS, SLOTS
from dinomx_core.planning.words import OURS, WORDS, written


@pytest.mark.parametrize("ours", OURS)
def test_what_is_said_instead_is_there(ours):
    if ours.startswith("recipe = "):
        return
    header, setting = re.fullmatch(r"\[([a-z.]+)\](?: (.+))?", ours).groups()
    table, _, label = header.partition(".")
    if setting is None and not label:
        assert table in SECTIONS
    elif table == "backbone" and "name" not in setting:
        assert {*tomli.loads(setting)} <= {*attrs.fields_dict(discover().find("backbone", "hf").options)}
    elif table == "augmentation" and label:
        views = attrs.fields_dict(discover().find("augmentation", "multicrop").options)
        assert label in views
        assert {*tomli.loads(setting)} <= {*attrs.fields_dict(Crops)}
    elif table in LABELLED:
        assert label in discover().names(LABELLED[table][0])
    elif ours == '[data] path = "images/"':
        assert "path" in attrs.fields_dict(discover().find("dataset", "image-folder").options)
    elif table in SLOTS:
        assert tomli.loads(setting)["name"] in discover().names(SLOTS[table][0])
    else:
        values = tomli.loads(setting)
        assert set(values) <= {field.name for field in attrs.fields(SECTIONS[table])}
        required = {field.name: 1 for field in attrs.fields(SECTIONS[table]) if field.default is attrs.NOTHING}
        make_converter(discover()).structure({**required, **values}, SECTIONS[table])


def test_no_word_stands_twice_or_is_a_table_of_ours():
    words = [word for words in OURS.values() for word in words.split()]
    assert len(words) == len(set(words)) == len(WORDS) > 150
    assert not set(words) & {*SECTIONS, *SLOTS, *LABELLED}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": "ddp"}, 'strategy: expected tables [strategy.LABEL]; write [parallelism] name = "ddp"'),
        ({"strategy": "lora"}, "strategy: expected tables [strategy.LABEL]; write [strategy.lora]"),
        ({"strategies": ["ddp"]}, 'no strategy is called "ddp"; "ddp" is a parallelism; write [parallelism] name = "ddp"'),
        ({"backbone": "vit"}, 'backbone: expected a table, got "vit"; write { name = "vit" }'),
        ({"backbone": {"name": "dino"}}, 'no backbone is called "dino"; did you mean "dinov2"?'),
        ({"teacher": {"name": "knn"}}, 'no strategy is called "knn"; "knn" is an evaluator; write [evaluate.knn]'),
        ({"run": {"epochs": 3}}, 'run.epochs: unknown key; here it is "steps"'),
        ({"epochs": 3}, 'epochs: unknown key; here it is [run] steps = "100 passes"'),
        ({"optimizer": {"Learning-Rate": 1}}, 'optimizer.Learning-Rate: unknown key; here it is "lr"'),
        ({"loader": {"batch_size": 4}}, "loader.batch_size: unknown key; here it is [run] batch_size = 64"),
        ({"backbone": {"gpus": 2}}, 'backbone.gpus: unknown key; here it is [parallelism] name = "ddp"'),
        ({"lora": {"rank": 4}}, "lora: unknown key; here it is [strategy.lora]"),
        ({"fsdp": True}, 'fsdp: unknown key; here it is [parallelism] name = "fsdp"'),
        ({"method": "dino"}, 'method: unknown key; here it is recipe = "NAME", of those that `dinomx plugins` lists'),
        ({"train": {"lr": 1}}, "train: unknown key; here it is [run]"),
        ({"backbone": {"embed_dim": 384}}, 'backbone.embed_dim: unknown key; here it is "width"'),
        ({"backbone": {"model": "a/b"}}, 'backbone.model: unknown key; here it is "name", or "weights" for a trained one'),
        ({"augmentation": {"local_crops_number": 8}}, "augmentation.local_crops_number: unknown key; here it is [augmentation.locals] count = 8"),
        ({"strategy": "deepspeed"}, 'strategy: expected tables [strategy.LABEL]; here it is [parallelism] name = "ddp"'),
        ({"run": {"precision": "16-mixed"}}, 'got "16-mixed"; did you mean "fp16"?'),
        ({"run": {"precision": "fp32"}}, 'got "fp32"; did you mean "float32"?'),
        ({"run": {"device": "gpu"}}, 'got "gpu"; did you mean "cuda"?'),
        ({"run": {"stepz": 4}}, 'run.stepz: unknown key; did you mean "steps"?'),
    ],
)  # fmt: skip
def test_messages(toy, changes, message):
    with pytest.raises(ConfigError) as caught:
        api.plan(toy(**changes))
    assert message in str(caught.value)


def test_the_core_names_none_of_the_plugins_components():
    core = {c.name for plugin in discover().plugins if plugin.name == "builtin" for c in plugin.components}
    named = re.findall(r"(?:name = \"|\[(?:evaluate|tracker|strategy|head|loss)\.)([\w-]+)", " ".join(OURS))
    assert set(named) - {"first"} <= core


def test_how_components_are_picked():
    registry = discover()
    found = {name: written(registry, name) for name in ("ddp", "lora", "knn", "digits", "ema", "dinov1", "nothing")}
    assert found == {
        "ddp": '[parallelism] name = "ddp"', "lora": "[strategy.lora]", "knn": "[evaluate.knn]", "digits": '[data] name = "digits"',
        "ema": '[teacher] name = "ema"', "dinov1": 'recipe = "dinov1"', "nothing": "",
    }  # fmt: skip
