"""Each tutorial does what it says, from its own text: files written, commands run, in an environment that has only wheels."""

import os
import re
import stat
import subprocess
import sys

import pytest

from tests.wheels import ROOT, done

pytestmark = pytest.mark.slow
PAGES = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"`([\w./-]+\.(?:py|toml))`")
PIP = """#!/bin/sh
shift
exec {python} -m pip --python {venv}/bin/python --disable-pip-version-check install --no-index --no-deps --no-build-isolation --find-links {wheels} "$@"
"""


def parts(text):
    """(language, content, the file that the text before names) of each block."""
    last = 0
    for block in BLOCK.finditer(text):
        names = NAMED.findall(text[last : block.start()].strip().rpartition("\n\n")[2])
        yield block[1], block[2], names[-1] if names else ""
        last = block.end()


@pytest.fixture
def shell(environment):
    """A function that runs commands as somebody would who has the environment active; `pip install` finds the wheels."""
    environment.install("dinomx", "dinomx-dinov1")
    pip = environment.bin / "pip"
    pip.write_text(PIP.format(python=sys.executable, venv=environment.root, wheels=environment.wheels))
    pip.chmod(pip.stat().st_mode | stat.S_IXUSR)

    def run(commands, folder):
        variables = {**environment.variables(), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(["bash", "-e", "-c", commands], cwd=folder, env=variables, capture_output=True, text=True)

    return run


def test_there_are_four():
    assert [page.stem for page in PAGES] == ["backbone", "domain-augmentation", "first-loss", "strategy"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_does_what_it_says(page, shell, tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    written, ran = [], []
    for language, content, name in parts(page.read_text("utf-8")):
        if language == "sh":
            done(shell(content, folder))
            ran += content.split("\n")
        elif language in ("python", "toml"):
            assert name, f"no file is named before this block:\n{content}"
            assert (folder / name).parent.is_dir(), (
                f"{name}: its folder is not there; has `dinomx plugin new` been run?"
            )
            (folder / name).write_text(content, "utf-8")
            written.append(os.path.basename(name))
    assert {"plugin.py", "example.toml"} <= set(written)
    assert any("pytest" in command for command in ran)
    assert any("dinomx run" in command for command in ran)
    assert list(folder.glob("*/runs/*/export/model.safetensors"))
