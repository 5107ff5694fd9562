"""Plugins as entry points of hand-written distributions, and what may be installed."""

import importlib
import sys
import textwrap

import pytest

from dinomx_core import PluginError
from dinomx_core.declare.discover import discover
from dinomx_core.declare.listing import as_json, as_text

LOSS = """
import attrs
from dinomx_core import Loss, Request, hookimpl, option

@attrs.frozen
class Spread:
    '''Keep features apart.'''
    margin: float = option(1.0, "how far")

@hookimpl
def dinomx_losses():
    yield Loss("spread", Spread, "somewhere:Spread", requests=lambda options: [Request("student", "global")])
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Write a distribution with one entry point, as pip would leave it."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, code, module=None):
        module = module or f"dinomx_{name}"
        if code is not None:
            (tmp_path / f"{module}.py").write_text(textwrap.dedent(code))
        info = tmp_path / f"dinomx_{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: dinomx-{name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[dinomx.plugins]\n{name} = {module}\n")
        importlib.invalidate_caches()

    yield write
    for module in [
        name for name, m in sys.modules.items() if str(getattr(m, "__file__", "")).startswith(str(tmp_path))
    ]:
        del sys.modules[module]


def test_a_strangers_plugin_is_found_with_its_version_and_summary(install):
    install("spread", LOSS)
    registry = discover()
    assert registry.find("loss", "spread").summary == "Keep features apart."
    listed = next(p for p in as_json(registry)["plugins"] if p["name"] == "spread")
    assert listed == {
        "name": "spread",
        "package": "dinomx-spread",
        "version": "1.2",
        "error": None,
        "notes": [],
        "components": [{"kind": "loss", "name": "spread", "summary": "Keep features apart."}],
    }


def test_what_is_merely_available_comes_with_its_pip_line(monkeypatch):
    registry = discover()
    without = type(registry)(tuple(p for p in registry.plugins if p.name != "dinov1"), registry.available)
    with pytest.raises(PluginError, match='loss "dino" is not installed; install it with: pip install dinomx-dinov1'):
        without.find("loss", "dino")
    assert "pip install dinomx-dinov1" in as_text(without)


def test_a_name_of_another_kind_is_said_so():
    with pytest.raises(PluginError) as caught:
        discover().find("loss", "centering")
    assert str(caught.value) == 'no loss is called "centering"; "centering" is a target'


def test_registry_toml_lists_what_this_repositorys_plugins_declare():
    registry = discover()
    declared = {
        (c.kind, c.name, p.distribution, c.summary)
        for p in registry.plugins
        if p.distribution.startswith("dinomx-")
        for c in p.components
    }
    assert declared == {(a.kind, a.name, a.package, a.summary) for a in registry.available}
