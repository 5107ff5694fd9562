"""Plugins as a stranger writes them (examples/plugins): found, described, installed and mixed, with nothing in the core for their sake."""

import json
import re
import subprocess
import sys

import attrs
import pytest

from dinomx_core.declare.components import Component
from dinomx_core.declare.discover import discover
from tests.fixtures import rows
from tests.outside import PACKAGES, TOP
from tests.wheels import done

NAMES = {"monai-vit", "vicreg", "no-ema", "ijepa"}
EACH = pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)


def declared(package):
    """What it adds to the registry."""
    registry = discover(package.declarations())
    names = [module.__name__ for module in package.declarations()]
    found = [plugin for plugin in registry.plugins if plugin.module in names]
    assert [plugin.error for plugin in found] == [""] * len(names)
    return registry, [component for plugin in found for component in plugin.components]


def test_there_are_the_four():
    assert {package.folder.name for package in PACKAGES} == NAMES
    assert {package.name for package in PACKAGES} == {f"dinomx-{name}" for name in NAMES}


@EACH
def test_its_declarations_import_no_torch(package):
    code = f"import sys, {', '.join(package.modules.values())}; assert not {{'torch', 'monai', 'transformers'}} & set(sys.modules)"
    path = [*map(str, (TOP, package.folder))]
    done(
        subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path[:0] = {path}; {code}"], capture_output=True, text=True
        )
    )


@EACH
def test_its_components_are_nobody_elses_and_its_page_tells_their_options(package):
    registry, components = declared(package)
    page = (package.folder / "README.md").read_text("utf-8")
    for component in components:
        assert isinstance(component, Component)
        assert registry.find(component.kind, component.name) is component
        assert f"| {component.kind} | `{component.name}` |" in page
        for field in attrs.fields(component.options):
            assert field.metadata["doc"], field.name
            assert re.search(rf"^\| [^|]*`{field.name}`", page, re.MULTILINE), field.name


@pytest.mark.slow
def test_they_work_installed_alone_and_mixed(environment, tmp_path):
    needed = ("dinov1", "dinov2", "lora")
    environment.install("dinomx", *(f"dinomx-{name}" for name in needed))
    editable, built = PACKAGES[::2], PACKAGES[1::2]
    environment.install(*(part for package in editable for part in ("-e", package.folder)), *(p.folder for p in built))
    listed = json.loads(done(environment.run("dinomx", "plugins", "--json", cwd=tmp_path)))["plugins"]
    assert {plugin["name"] for plugin in listed} == {"builtin", *needed, *NAMES}
    assert not [plugin["error"] for plugin in listed if plugin["error"]]

    def run(config, name):
        short = [f"run.name={name}", "run.steps=2", "run.batch_size=8", "optimizer.lr.warmup=1"]
        done(
            environment.run(
                "dinomx", "run", config, *(word for change in short for word in ("--set", change)), cwd=tmp_path
            )
        )
        assert (tmp_path / "runs" / name / "export" / "model.safetensors").exists()

    for package in PACKAGES:
        run(package.folder / "example.toml", package.folder.name)
        done(environment.run("dinomx", "plugin", "check", package.name, "--fast", cwd=tmp_path))
    run(TOP / "examples" / "plugins" / "mix.toml", "mix")
    assert all(row["gradient_norm"] > 0 for row in rows(tmp_path / "runs" / "mix" / "metrics.jsonl"))
    assert not list((tmp_path / "runs" / "mix").glob("checkpoints/*/teacher.safetensors"))
