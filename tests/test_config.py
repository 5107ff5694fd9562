"""Whole messages: place, key, what is wrong, remedy."""

import re
import textwrap
from pathlib import Path

import pytest

from dinomx_core import ConfigError, api
from dinomx_core.planning.document import locate

GOOD = """\
recipe = "dinov1-small"
[run]
steps = 10
batch_size = 16
[data]
name = "digits"
[augmentation]
mean = [0.3]
std = [0.35]
"""


@pytest.fixture
def errors(tmp_path, monkeypatch):
    """Text of a config -> its error lines."""
    monkeypatch.chdir(tmp_path)

    def of(text, *overrides):
        (tmp_path / "c.toml").write_text(textwrap.dedent(text))
        with pytest.raises(ConfigError) as caught:
            api.plan("c.toml", overrides=overrides)
        assert caught.value.exit_code == 2
        return str(caught.value).splitlines()

    return of


def test_every_error_is_reported_at_once_with_its_line(errors):
    text = (
        GOOD
        + """\
[optimizer]
lr = "fast"
momentun = 0.9
clip = -1.0
[backbone]
dept = 3
patch_size = 4.0
[loss.dino.target]
name = "centring"
[head.dino]
prototypes = 0
"""
    )
    assert errors(text) == [
        "c.toml:12: optimizer.momentun: unknown key; known: backbone_lr, betas, clip, clip_scope, eps, freeze_last_layer, "
        "freeze_last_layer_by, layer_decay, lr, patch_embed_lr, scaling, scaling_batch, weight_decay",
        'c.toml:11: optimizer.lr: expected a number or a table such as { peak = 1e-3, end = 1e-6, warmup = "10%" }, got "fast"',
        "c.toml:13: optimizer.clip: must be 0 or more, got -1.0",
        'c.toml:15: backbone.dept: unknown key; did you mean "depth"?',
        "c.toml:16: backbone.patch_size: expected a whole number, got 4.0",
        'c.toml:18: loss.dino.target.name: no target is called "centring"; did you mean "centering"?',
        "c.toml:20: head.dino.prototypes: must be >= 2, got 0",
    ]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("[run]\nbatch_size = true", "c.toml:5: run.batch_size: expected a whole number, got true"),
        (
            "[run]\nsteps = 3.7",
            'c.toml:5: run.steps: expected steps (500), a share of the run ("10%") or passes over the data ("30 passes")',
        ),
        (
            '[run]\nsteps = "50%"',
            'c.toml:5: run.steps: must be steps (20000) or passes over the data ("100 passes"), more than none, got "50%"',
        ),
        (
            '[run]\nprecision = "bf61"',
            'c.toml:5: run.precision: expected one of "float32", "bf16", "fp16", "float64", got "bf61"; did you mean "bf16"?',
        ),
        ('[run]\nname = "a/b"', "c.toml:5: run.name: must be a plain folder name, got 'a/b'"),
        (
            "[loader]\nshuffle = 1",
            "c.toml:5: loader.shuffle: expected true or false, got 1",
        ),
        (
            '[run]\nfrozen_weights = "bf16"',
            'c.toml:5: run.frozen_weights: "bf16" needs run.precision = "bf16", not "float32"',
        ),
        (
            '[run]\nfrozen_weights = "bf16"\nprecision = "bf16"',
            "c.toml:5: run.frozen_weights: nothing is frozen, and there is no further network; leave it out",
        ),
        (
            '[run]\nrecompute = "mlp"\nrecompute_every = 99',
            "c.toml:6: run.recompute_every: 99, but there are 6 blocks; nothing would be recomputed",
        ),
        ("[optimizer]\nbetas = 0.9", "c.toml:5: optimizer.betas: expected an array, got 0.9"),
        ('[optimizer]\nbetas = [0.9, "x"]', 'c.toml:5: optimizer.betas: item 2: expected a number, got "x"'),
        ("[optimizer]\nlr = nan", "c.toml:5: optimizer.lr.peak: expected a number, got NaN"),
        ("[optimiser]\nlr = 1", 'c.toml:4: optimiser: unknown key; did you mean "optimizer"?'),
        (
            'losses = ["dino", "byol"]',
            'c.toml:4: losses: no loss is called "byol"; installed: dino, distill-features, gram, ibot, koleo',
        ),
        (
            "[optimizer]\nbetas = [0.9]",
            "c.toml:5: optimizer.betas: must be two numbers of 0 or more and less than 1, got [0.9]",
        ),
        (
            "[optimizer]\nbetas = [0.9, 1.0]",
            "c.toml:5: optimizer.betas: must be two numbers of 0 or more and less than 1, got [0.9, 1.0]",
        ),
        ("[backbone]\ndrop_path = 1.0", "c.toml:5: backbone.drop_path: must be 0 or more and less than 1, got 1.0"),
        ("[log]\nevery = 0", 'c.toml:5: log.every: must be more than none, got "0 steps"'),
        (
            '[loss."a.b"]\nname = "dino"',
            'c.toml:4: loss.a.b: "a.b" cannot be a label: letters, digits, - and _, and none of keys, values, items, pop, clear, update, type, teacher',
        ),
        ("head = 3", "c.toml:4: head: expected tables [head.LABEL]"),
        ("run = 3", "c.toml:4: run: expected a table, got 3"),
    ],
)
def test_single_errors(errors, change, expected):
    lines = errors(
        f'recipe = "dinov1-small"\n# a comment\n\n{change}\n[data]\nname = "digits"\n[augmentation]\nmean = [0.3]\nstd = [0.3]\n'
    )
    assert expected in lines


def test_missing_keys_name_what_could_stand_there(errors):
    assert errors("[run]\nbatch_size = 4\n") == [
        "c.toml:1: run.steps: missing",
        "c.toml: optimizer.lr: missing",
        "c.toml: data: missing; add [data] with a name (digits, hf-dataset, image-folder, manifest, marked, medmnist, mix, shards)",
        "c.toml: backbone: missing; add [backbone] with a name (bag-of-channels, channel-tokens, dinov2, dinov2-registers, dinov3-convnext, dinov3-vit, hf, vit)",
        "c.toml: augmentation: missing; add [augmentation] with a name (ct, microscopy, mri, multicrop, multispectral, natural, xray)",
        "c.toml: loss: no loss; add a table [loss.NAME] (dino, distill-features, gram, ibot, koleo) or a recipe",
    ]


def test_a_head_that_is_not_there_is_named(errors):
    lines = errors(GOOD + '[loss.dino]\nhead = "mine"\n')
    assert lines == ["c.toml:11: loss.dino.head: there is no table [head.mine] and no head component of that name"]


def test_not_toml_missing_empty_and_folder(errors, tmp_path):
    assert errors("[run\nsteps = 1\n") == ["c.toml:1: not valid TOML: Expected ']' at the end of a table declaration"]
    assert errors("") == ['c.toml: the config is empty; start with `recipe = "…"` (see `dinomx plugins`)']
    for name, message in (
        ("none.toml", "there is no such file"),
        (str(tmp_path), "this is a folder; name the TOML file in it"),
    ):
        with pytest.raises(ConfigError) as caught:
            api.plan(name)
        assert str(caught.value) == f"{name}: {message}"


def test_unknown_recipe(errors):
    assert errors('recipe = "dinov1-smal"\n') == [
        'c.toml:1: recipe: no recipe is called "dinov1-smal"; did you mean "dinov1-small"?'
    ]


def test_set_is_read_as_toml_else_as_text(errors, tmp_path):
    (tmp_path / "c.toml").write_text(GOOD)
    made = api.plan(
        tmp_path / "c.toml",
        overrides=["run.precision=bf16", "optimizer.lr=1e-2", 'run.steps="2 passes"', "optimizer.betas=[0.8,0.9]"],
    )
    assert (made.spec.run.precision, made.spec.optimizer.betas, made.steps) == ("bf16", [0.8, 0.9], 225)
    assert made.curves["optimizer.lr"].peak == 0.01
    assert errors(GOOD, "optimizer.lr=quick") == [
        "--set optimizer.lr=quick: optimizer.lr: expected a number or a table such as "
        '{ peak = 1e-3, end = 1e-6, warmup = "10%" }, got "quick"'
    ]
    assert errors(GOOD, "novalue") == ["--set novalue: expected KEY=VALUE, such as optimizer.lr=1e-4"]


def test_a_number_over_a_recipes_schedule_replaces_its_peak(tmp_path):
    (tmp_path / "c.toml").write_text(GOOD + "[optimizer]\nlr = 5e-3\n")
    made = api.plan(tmp_path / "c.toml")
    curve = made.curves["optimizer.lr"]
    assert (curve.peak, curve.end, curve.warmup) == (5e-3, 1e-5, 1)
    source = {value.key: value.source for value in made.values}
    assert source["optimizer.lr.peak"] == f"{tmp_path}/c.toml:11"
    assert re.fullmatch(r"recipe dinov1-small:\d+", source["optimizer.lr.end"])
    assert source["optimizer.eps"] == "default"


def test_a_new_name_drops_the_recipes_keys_of_that_table(tmp_path, image_folder):
    (tmp_path / "base.toml").write_text(GOOD)
    text = GOOD.replace('name = "digits"', 'name = "digits"\nsplit = "test"')
    (tmp_path / "c.toml").write_text(text)
    made = api.plan(
        tmp_path / "c.toml", overrides=['data.name="image-folder"', f'data.path="{image_folder}"', "run.batch_size=8"]
    )
    assert made.data.count == 12


def test_lines_are_found_through_strings_arrays_and_inline_tables():
    text = 'a = """\n[no]\nx = 1\n"""\n[t]\nlist = [\n  1,\n  2,\n]\n"odd key" = 1\nb.c = { d = 1 }\n[[t.x]]\nz = 1\n'
    assert locate(text) == {
        ("a",): 1, ("t",): 5, ("t", "list"): 6, ("t", "odd key"): 10, ("t", "b"): 11, ("t", "b", "c"): 11, ("t", "x"): 12, ("t", "x", "0"): 12, ("t", "x", "0", "z"): 13,
    }  # fmt: skip


def test_a_config_can_be_a_dict(toy):
    made = api.plan(toy())
    assert made.steps == 4
    assert made.spec.run.name == "run"
    with pytest.raises(ConfigError, match=r"^config: optimizer\.lr: expected a number"):
        api.plan(toy(optimizer={"lr": "x"}))
    with pytest.raises(ConfigError, match=r"^config: run\.out: expected a text, got "):
        api.plan(toy(run={"out": Path("x")}))


def test_places_survive_comments_separators_and_overrides(errors):
    assert errors('# use """ for long texts\n' + GOOD + "[backbone]\ndept = 1\n") == [
        'c.toml:12: backbone.dept: unknown key; did you mean "depth"?'
    ]
    assert (
        errors(GOOD + "#\u2028\n[backbone]\ndept = 1\n")[-1]
        == 'c.toml:12: backbone.dept: unknown key; did you mean "depth"?'
    )
    assert (
        errors("[run]\nsteps = 1\nbatch_size = 1\n", "run.threads=1")[1]
        == "c.toml: data: missing; add [data] with a name (digits, hf-dataset, image-folder, manifest, marked, medmnist, mix, shards)"
    )
    assert errors(GOOD, "optimizer.lr=-1") == ["--set optimizer.lr=-1: optimizer.lr: must be 0 or more, got -1.0"]


def test_odd_overrides_are_refused_or_texts(errors):
    assert errors(GOOD, "run steps=7") == ["--set run steps=7: expected KEY=VALUE, such as optimizer.lr=1e-4"]
    assert errors(GOOD, "run.precision=bf16\nfoo = 1")[0].startswith("--set run.precision=bf16\nfoo = 1"[:24])


def test_naming_the_default_component_keeps_the_recipes_keys(tmp_path):
    (tmp_path / "c.toml").write_text(GOOD + '[teacher]\nname = "ema"\n[loss.dino]\nname = "dino"\n')
    made = api.plan(tmp_path / "c.toml")
    assert made.curves["teacher.momentum"].peak == 0.99
    assert made.spec.losses["dino"].options.teacher_temperature.peak == 0.04


def test_evaluation_data_that_is_missing_is_reported_with_the_rest(errors):
    lines = errors(
        GOOD
        + '[backbone]\nheads = 5\n[evaluate.knn]\nk = [5]\nquery = { name = "digits" }\n[evaluate.knn.bank]\nname = "image-folder"\npath = "nosuch"\n'
    )
    assert [line.split(" (looked")[0] for line in lines] == [
        'c.toml:17: evaluate.knn.bank.path: there is no folder "nosuch"',
        "c.toml:11: backbone.heads: width 128 does not divide over 5 heads",
    ]


def test_paths_that_are_no_files(errors, tmp_path):
    (tmp_path / "c.toml").write_text(GOOD)
    with pytest.raises(ConfigError, match=r"c\.toml/x: cannot be read: .*Not a directory"):
        api.plan("c.toml/x")
    assert errors("a = " + "[" * 3000) == ["c.toml: not valid TOML: nested too deeply"]
    (tmp_path / "bom.toml").write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert api.plan("bom.toml").steps == 10


def test_missing_data_are_reported_beside_wrong_keys(errors):
    lines = errors(GOOD.replace('name = "digits"', 'name = "image-folder"\npath = "nosuch"') + "[backbone]\ndept = 3\n")
    assert [line.split(" (looked")[0] for line in lines] == [
        'c.toml:12: backbone.dept: unknown key; did you mean "depth"?',
        'c.toml:7: data.path: there is no folder "nosuch"',
    ]


def test_a_key_of_another_component_says_whose_it_is(errors):
    (message,) = errors(GOOD + "[backbone]\nweights = 'here'\n")
    assert message.startswith("c.toml:11: backbone.weights: unknown key; known: depth, ")
    assert message.endswith(', width ("dinov2", "dinov2-registers", "dinov3-convnext", "dinov3-vit", "hf" have it)')
