"""Plugins as entry points of hand-written distributions, and what may be installed."""

import textwrap

import pytest
from typer.testing import CliRunner

from dinomx_core import PluginError, api
from dinomx_core.cli import app
from dinomx_core.declare.catalogue import Available, catalogue, read, written
from dinomx_core.declare.discover import Registry, discover
from dinomx_core.declare.listing import as_json, as_registry, as_text
from tests.distributions import LOSS
from tests.wheels import ROOT


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


def test_the_registry_is_what_this_repositorys_plugins_declare():
    ours = [
        plugin for plugin in discover().plugins if (ROOT / "plugins" / plugin.name).is_dir() or plugin.name == "builtin"
    ]
    assert (ROOT / "registry.toml").read_text("utf-8") == as_registry(
        Registry(tuple(ours), ())
    )  # `make docs` writes it


def test_users_add_registries_of_their_own(install, monkeypatch, tmp_path):
    install("spread", LOSS)
    done = CliRunner().invoke(app, ["plugins", "--write-registry", str(tmp_path / "ours.toml")])
    assert done.output == f"wrote        {tmp_path / 'ours.toml'}\n"
    assert 'package = "dinomx-spread"' in (tmp_path / "ours.toml").read_text("utf-8")
    (tmp_path / "dinomx_spread-1.2.dist-info" / "entry_points.txt").unlink()
    (tmp_path / "bad.toml").write_text('[[component]]\nkind = "loss"\nname = "x"\n')
    monkeypatch.setenv("DINOMX_REGISTRY", f"{tmp_path / 'bad.toml'}:{tmp_path / 'none.toml'}:{tmp_path / 'ours.toml'}")
    registry = discover()
    with pytest.raises(PluginError, match='loss "spread" is not installed; install it with: pip install dinomx-spread'):
        registry.find("loss", "spread")
    assert registry.faults == (
        f"{tmp_path / 'bad.toml'} (DINOMX_REGISTRY) is left out: component 1 needs the texts kind, name, package, summary; package is missing",
        f"{tmp_path / 'none.toml'} (DINOMX_REGISTRY) is left out: No such file or directory",
    )
    assert as_text(registry).endswith("No such file or directory")


def test_what_is_deprecated_is_told_once_with_its_remedy(install, toy):
    old = LOSS.replace('option(1.0, "how far")', 'option(1.0, "how far", deprecated="use distance")').replace(
        "requests=", 'deprecated="use variance", requests='
    )
    early = """
    import warnings
    from dinomx_core import DinomxDeprecation
    for _ in range(2):
        warnings.warn("Wish will go; use Want", DinomxDeprecation)
    """
    install("spread", textwrap.dedent(early) + old.replace("somewhere", "dinomx_spread_loss"))
    config = toy(loss={"spread": {"margin": 2.0}, "again": {"name": "spread"}})
    warnings = [text for text in api.plan(config).warnings if "deprecated" in text or "will go" in text]
    assert warnings == [
        'loss.spread: loss "spread" is deprecated: use variance',
        "config: loss.spread.margin is deprecated: use distance",
        'loss.again: loss "spread" is deprecated: use variance',
        "dinomx-spread: Wish will go; use Want",
    ]
    unused = LOSS.replace('option(1.0, "how far")', 'option([], "how far", deprecated="use distance")').replace(
        ": float", ": list[float]"
    )
    install("still", unused.replace('"spread"', '"still"'))
    assert not [text for text in api.plan(toy(loss={"still": {}})).warnings if "deprecated" in text]
    assert not [text for text in api.plan(toy()).warnings if "will go" in text]


ROW = '[[component]]\nkind = "loss"\nname = "x"\npackage = "dinomx-x"\nsummary = ""\n'
TABLES = "component is not an array of tables; write each as [[component]]"
TEXTS = "component 1 needs the texts kind, name, package, summary; "
ILL = {
    "component = 3": TABLES,
    "component = [1]": TABLES,
    ROW.replace("[[component]]", "[component]"): TABLES,
    ROW + 'color = "red"': TEXTS + "color is none of them",
    ROW.replace('"dinomx-x"', "3"): TEXTS + "package is not a text",
    ROW.replace('"dinomx-x"', '""'): TEXTS + "package is empty",
    ROW.replace('"loss"', '"losss"'): 'component 1 is of an unknown kind "losss"; did you mean "loss"?',
    "parts = []": "unknown key parts; a registry has tables [[component]]",
}


@pytest.mark.parametrize("text", ILL)
def test_a_registry_of_a_wrong_shape_is_left_out_and_told(text, monkeypatch, tmp_path):
    (tmp_path / "ill.toml").write_text(text)
    monkeypatch.setenv("DINOMX_REGISTRY", str(tmp_path / "ill.toml"))
    assert catalogue()[1] == (f"{tmp_path / 'ill.toml'} (DINOMX_REGISTRY) is left out: {ILL[text]}",)


def test_a_registry_of_nobody_is_left_out_and_told(monkeypatch):
    monkeypatch.setenv("DINOMX_REGISTRY", "~no-such-user/ours.toml")
    rows, (fault,) = catalogue()
    assert rows and fault.startswith("~no-such-user/ours.toml (DINOMX_REGISTRY) is left out: Could not determine home")


def test_what_nobody_has_described_can_be_written_and_read(tmp_path):
    rows = [Available("dinomx-x", "loss", "x", "")]
    (tmp_path / "ours.toml").write_text(written(rows))
    assert read(tmp_path / "ours.toml") == rows
