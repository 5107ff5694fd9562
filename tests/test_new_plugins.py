"""What `dinomx plugin new` writes, of each kind, from wheels: it installs, is found, passes its tests and trains."""

import json
import re

import pytest

from dinomx_core.scaffold import KINDS
from tests.wheels import done

pytestmark = pytest.mark.slow


def test_a_new_plugin_of_each_kind_installs_passes_its_tests_and_trains(environment, tmp_path):
    environment.install("dinomx", "dinomx-dinov1")
    names = {kind: f"odd-{kind}" for kind in KINDS}
    folders = {kind: tmp_path / f"dinomx-{name}" for kind, name in names.items()}
    for kind, name in names.items():
        done(environment.run("dinomx", "plugin", "new", name, "--kind", kind, cwd=tmp_path))
        assert sum(len(file.read_text().splitlines()) for file in folders[kind].rglob("*.py")) < 80
    environment.install(*(word for folder in folders.values() for word in ("-e", folder)))
    listed = json.loads(done(environment.run("dinomx", "plugins", "--json", cwd=tmp_path)))["plugins"]
    found = {plugin["name"]: plugin for plugin in listed}
    for kind, name in names.items():
        assert found[name]["package"] == f"dinomx-{name}" and not found[name]["error"]
        assert [(part["kind"], part["name"]) for part in found[name]["components"]] == [(kind, name)]
    test = ("python", "-m", "pytest", "-rs", "--import-mode=importlib", "-p", "no:cacheprovider")
    told = done(environment.run(*test, "-k", "not resume and not processes", *folders.values(), cwd=tmp_path))
    passed, skipped = re.search(r"(\d+) passed, (\d+) skipped", told).groups()
    assert int(passed) > 90 and int(skipped) == 1  # the data set's example is about its own images
    alone = folders["loss"]  # needs no plugin but itself
    done(environment.run(*test, "-W", "error::pytest.PytestUnknownMarkWarning", cwd=alone))
    done(environment.run("dinomx", "run", "example.toml", "--set", "run.steps=2", "--quiet", cwd=alone))
    assert list(alone.glob("runs/*/export/model.safetensors"))
    assert "ok       loss odd-loss" in done(
        environment.run("dinomx", "plugin", "check", "odd-loss", "--fast", cwd=alone)
    )
    told = done(environment.run("dinomx", "plugin", "check", "dinov1", "--fast", cwd=alone))
    assert "dinomx-dinov1 is not installed in place, so its README.md is not to be found" in told
