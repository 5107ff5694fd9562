"""The core and every plugin work from wheels, without the checkout."""

import json
import shutil

import pytest

from tests.wheels import ROOT, done

pytestmark = pytest.mark.slow
PLUGINS = sorted(file.parent.name for file in ROOT.glob("plugins/*/pyproject.toml"))


def test_all_of_it_works_from_wheels(environment, tmp_path):
    environment.install("dinomx", *(f"dinomx-{name}" for name in PLUGINS))
    listed = json.loads(done(environment.run("dinomx", "plugins", "--json", cwd=tmp_path)))["plugins"]
    assert {plugin["name"] for plugin in listed} == {"builtin", *PLUGINS}
    assert not [plugin["error"] for plugin in listed if plugin["error"]]
    shutil.copy(ROOT / "examples/quickstart.toml", tmp_path)
    done(environment.run("dinomx", "run", "quickstart.toml", "--set", "run.steps=2", cwd=tmp_path))
    assert list(tmp_path.glob("runs/*/export/model.safetensors"))
