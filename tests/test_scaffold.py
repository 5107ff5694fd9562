"""`dinomx plugin new`: what it writes, and what it refuses."""

import ast
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dinomx_core import ConfigError
from dinomx_core.cli import app
from dinomx_core.scaffold import COMMON, KINDS, new_plugin
from dinomx_core.shipped import shipped
from tests.wheels import ROOT


def lines_of(folder):
    return sum(len(file.read_text().splitlines()) for file in folder.rglob("*.py"))


def test_there_is_a_template_for_every_kind():
    told = CliRunner().invoke(app, ["plugin", "new", "--help"], terminal_width=200).output
    assert not [kind for kind in KINDS if kind not in told]
    assert {place.name for place in shipped("_template", "plugins/_template").iterdir()} == {COMMON, *KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_is_whole_parses_and_is_short(tmp_path, kind):
    folder = new_plugin("odd-1-out", kind, tmp_path)
    assert folder == tmp_path / "dinomx-odd-1-out"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files >= {
        "pyproject.toml", "README.md", "LICENSE", "example.toml", "dinomx_odd_1_out/plugin.py", "tests/test_odd_1_out.py",
    }  # fmt: skip
    told = tomllib.loads((folder / "pyproject.toml").read_text())
    assert told["project"]["name"] == "dinomx-odd-1-out"
    assert told["project"]["entry-points"]["dinomx.plugins"] == {"odd-1-out": "dinomx_odd_1_out.plugin"}
    text = "".join(path.read_text() for path in folder.rglob("*") if path.is_file())
    assert not [word for word in ("my-name", "my_name", "MyName", "my-kind") if word in text]
    tomllib.loads((folder / "example.toml").read_text())
    for file in folder.rglob("*.py"):
        ast.parse(file.read_text())
    assert lines_of(folder) < 80
    assert (folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("Soft", "loss", 'NAME: expected lower-case letters and digits, in words divided by single hyphens, with a letter first, 40 characters at most, got "Soft"'),
        ("soft_crop", "loss", 'NAME: expected lower-case letters and digits, in words divided by single hyphens, with a letter first, 40 characters at most, got "soft_crop"'),
        ("3d", "loss", 'NAME: expected lower-case letters and digits, in words divided by single hyphens, with a letter first, 40 characters at most, got "3d"'),
        ("dinomx-soft", "loss", 'NAME: "dinomx-soft" has the beginning of every package; leave it out: soft'),
        ("view", "loss", 'NAME: "view" would make a class View, which Python or dinomx_core has already; choose another'),
        ("dino", "loss", 'NAME: the loss "dino" is there already (see `dinomx plugins`); choose another'),
        ("knn", "evaluator", 'NAME: the evaluator "knn" is there already (see `dinomx plugins`); choose another'),
        ("lora", "loss", 'NAME: "dinomx-lora" is a package of DINO-MX (see `dinomx plugins`); choose another'),
        ("core", "loss", 'NAME: a package "dinomx-core" is installed; choose another'),
        ("soft", "optimiser", '--kind: expected one of loss, backbone, augmentation, strategy, dataset, evaluator, recipe, got "optimiser"'),
    ],
)  # fmt: skip
def test_names_and_kinds_that_cannot_be_are_refused(tmp_path, name, kind, message):
    with pytest.raises(ConfigError) as caught:
        new_plugin(name, kind, tmp_path)
    assert str(caught.value) == message
    assert not any(tmp_path.iterdir())


def test_what_is_there_is_left_alone(tmp_path):
    (tmp_path / "dinomx-soft").mkdir()
    with pytest.raises(ConfigError) as caught:
        new_plugin("soft", "loss", tmp_path)
    assert (
        str(caught.value) == f"{tmp_path}/dinomx-soft is there already; choose another name, or another folder by --out"
    )
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"--out: .*/file/dinomx-soft cannot be written \(Not a directory\)"):
        new_plugin("soft", "loss", tmp_path / "file")


def test_the_command_says_what_comes_next(tmp_path):
    done = CliRunner().invoke(app, ["plugin", "new", "soft", "--kind", "recipe", "--out", str(tmp_path)])
    assert done.output.splitlines() == [
        f"wrote        {tmp_path}/dinomx-soft",
        f"next         cd {tmp_path}/dinomx-soft",
        'next         pip install -e ".[dev]"',
        "next         dinomx run example.toml",
        "next         pytest",
    ]
    assert (Path(tmp_path) / "dinomx-soft" / "dinomx_soft" / "soft.toml").is_file()
