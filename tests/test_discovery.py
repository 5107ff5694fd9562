"""Plugins as entry points of hand-written distributions: each fault has its own message and stops nobody else."""

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


def error_of(registry, name):
    return next(p.error for p in registry.plugins if p.name == name)


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
        "components": [{"kind": "loss", "name": "spread", "summary": "Keep features apart."}],
    }


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import not_there", "cannot import dinomx_bad: ModuleNotFoundError: No module named 'not_there'"),
        ("1 / 0", "cannot import dinomx_bad: ZeroDivisionError: division by zero"),
        (LOSS.replace("dinomx_losses", "dinomx_loses"), '"dinomx_loses" is not a hook; did you mean "dinomx_losses"?'),
        (LOSS + "\nDINOMX_API = 0\n", "made for plugin API 0, this is 1; upgrade the plugin"),
        (LOSS + "\nDINOMX_API = 2\n", "made for plugin API 2, this is 1; upgrade dinomx"),
        (LOSS + "    raise OSError('half-way')\n", "dinomx_losses() raised OSError: half-way"),
        (LOSS.replace("@attrs.frozen", ""), "dinomx_losses() raised TypeError: the options of \"spread\" are not an attrs class: <class 'dinomx_bad.Spread'>"),
        (LOSS + "\nDINOMX_API = '1'\n", "made for plugin API '1', this is 1; upgrade the plugin"),
        ("import sys; sys.exit('no licence')", "cannot import dinomx_bad: SystemExit: no licence"),
        (LOSS.replace('Loss("spread"', "Loss(None"), "dinomx_losses() raised TypeError: the name of"),
        (LOSS.replace("margin: float", "margin: 'Nowhere'"), "dinomx_losses() raised NameError: name 'Nowhere' is not defined"),
        ("x = 1", "dinomx_bad declares nothing: no function is marked with @hookimpl"),
        ("from dinomx_core import hookimpl\n@hookimpl\ndef dinomx_losses():\n    return None", "dinomx_losses() raised TypeError: 'NoneType' object is not iterable"),
        ("from dinomx_core import hookimpl\n@hookimpl\ndef dinomx_losses():\n    yield 3", "dinomx_losses() raised TypeError: it yielded 3, which does not belong there"),
    ],
)  # fmt: skip
def test_a_broken_plugin_is_named_with_its_cause_and_stops_nobody(install, code, expected):
    install("bad", code)
    registry = discover()
    assert error_of(registry, "bad").startswith(expected)
    assert registry.find("loss", "dino").name == "dino"
    assert f"BROKEN: {expected}" in as_text(registry)


def test_a_hook_with_arguments_is_refused(install):
    install("bad", LOSS.replace("def dinomx_losses()", "def dinomx_losses(config)"))
    assert "config" in error_of(discover(), "bad")


def test_two_plugins_that_claim_one_component_are_both_named(install):
    install("one", LOSS)
    install("two", LOSS)
    with pytest.raises(PluginError) as caught:
        discover().find("loss", "spread")
    assert str(caught.value) == (
        'loss "spread" is declared by dinomx-one (dinomx_one) and dinomx-two (dinomx_two); uninstall one of them'
    )


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
