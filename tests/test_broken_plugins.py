"""Ways in which a plugin can be wrong: each has one plain message with package and remedy, and stops no run that does not need it."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from dinomx_core import ConfigError, PluginError, api
from dinomx_core.declare.components import KINDS
from dinomx_core.declare.discover import discover
from dinomx_core.declare.listing import as_text
from dinomx_core.training.construct import CONTRACTS
from tests.distributions import LOSS
from tests.fixtures import in_table

BARE = "from dinomx_core import hookimpl\n@hookimpl\n"
AUTHOR = "; tell the author of dinomx-bad, or remove it: pip uninstall dinomx-bad"
AGAIN = "; install it again, or remove it: pip uninstall dinomx-bad"
HOOK = "dinomx_losses()"

BROKEN = {
    "needs a package": ("import not_there", 'needs the package "not_there"; install that, or remove the plugin: pip uninstall dinomx-bad'),
    "needs a part of a package": ("import numpy.not_there", 'needs the package "numpy.not_there"; install that, or remove the plugin: pip uninstall dinomx-bad'),
    "has no files": (None, "there is no module dinomx_bad" + AGAIN),
    "fails at import": ("x = 1\n1 / 0", "cannot import dinomx_bad: ZeroDivisionError: division by zero ({place}:2)" + AUTHOR),
    "exits at import": ("import sys; sys.exit('no licence')", "cannot import dinomx_bad: SystemExit: no licence ({place}:1)" + AUTHOR),
    "is no Python": ("def :", "cannot import dinomx_bad: SyntaxError: invalid syntax (dinomx_bad.py, line 1)" + AUTHOR),
    "wants what the core has not": ("from dinomx_core import Wish", "cannot import dinomx_bad: ImportError: cannot import name 'Wish' from 'dinomx_core' ({core}) ({place}:1)" + AUTHOR),
    "misspells a hook": (LOSS.replace("dinomx_losses", "dinomx_loses"), '"dinomx_loses" is not a hook (did you mean "dinomx_losses"?)' + AUTHOR),
    "has a hook that nobody knows": (LOSS.replace("dinomx_losses", "dinomx_quantum"), '"dinomx_quantum" is not a hook' + AUTHOR),
    "has a hook with an argument": (LOSS.replace("dinomx_losses()", "dinomx_losses(config)"), HOOK + " takes arguments (config), and hooks have none" + AUTHOR),
    "has a hook with a default": (LOSS.replace("dinomx_losses()", "dinomx_losses(a=1, *b)"), HOOK + " takes arguments (a, b), and hooks have none" + AUTHOR),
    "is too old": (LOSS + "\nDINOMX_API = 0\n", "it is made for version 0 of the plugin API, and this is 1; pip install --upgrade dinomx-bad"),
    "is too new": (LOSS + "\nDINOMX_API = 2\n", "it is made for version 2 of the plugin API, and this is 1; pip install --upgrade dinomx"),
    "has a version that is none": (LOSS + "\nDINOMX_API = '1'\n", "it is made for version '1' of the plugin API, and this is 1; pip install --upgrade dinomx-bad"),
    "declares nothing": ("x = 1", "it declares nothing: no function of its module is marked with @hookimpl" + AUTHOR),
    "returns nothing": (BARE + "def dinomx_losses(): pass", HOOK + " raised TypeError: 'NoneType' object is not iterable" + AUTHOR),
    "yields nothing": (BARE + "def dinomx_losses():\n    yield from ()", "it declares nothing: its hooks yield nothing" + AUTHOR),
    "is cancelled": (BARE + "def dinomx_losses():\n    import asyncio\n    raise asyncio.CancelledError", HOOK + " raised CancelledError ({place}:5)" + AUTHOR),
    "yields a number": (BARE + "def dinomx_losses():\n    yield 3", HOOK + ": it yielded 3, which does not belong there" + AUTHOR),
    "returns one": (LOSS.replace("    yield Loss", "    return Loss"), HOOK + " raised TypeError: 'Loss' object is not iterable" + AUTHOR),
    "yields it in another hook": (LOSS.replace("dinomx_losses", "dinomx_heads"), "dinomx_heads(): it yielded Loss(name='spread',"),
    "yields a class": (LOSS.replace('Loss("spread", Spread,', "Loss #"), HOOK + ": it yielded <class 'dinomx_core.declare.components.Loss'>, which does not belong there" + AUTHOR),
    "raises half-way": (LOSS + "    raise OSError('half-way')\n", HOOK + " raised OSError: half-way ({place}:13)" + AUTHOR),
    "is asynchronous": (BARE + "async def dinomx_losses():\n    yield 3", HOOK + " raised TypeError: 'async_generator' object is not iterable" + AUTHOR),
    "has options that are not attrs": (LOSS.replace("@attrs.frozen", ""), HOOK + ": the options of the loss \"spread\" are not an attrs class: <class 'dinomx_bad.Spread'>" + AUTHOR),
    "has options that are no class": (LOSS.replace('"spread", Spread', '"spread", Spread()'), HOOK + ': the options of the loss "spread" are not an attrs class: Spread(margin=1.0)' + AUTHOR),
    "has an option of no type": (LOSS.replace("margin: float", "margin: 'Nowhere'"), HOOK + " raised NameError: name 'Nowhere' is not defined"),
    "has no name": (LOSS.replace('Loss("spread"', "Loss(None"), HOOK + ": the name None of a loss is not one of letters, digits, '-', '_' and '.'" + AUTHOR),
    "has a name with a space": (LOSS.replace('Loss("spread"', 'Loss("my loss"'), HOOK + ": the name 'my loss' of a loss is not one of letters, digits, '-', '_' and '.'" + AUTHOR),
    "leaves something out": (LOSS.replace(", requests=lambda options: [Request(\"student\", \"global\")]", ""), HOOK + " raised TypeError: Loss.__init__() missing 1 required keyword-only argument: 'requests' ({place}:12)" + AUTHOR),
    "has a build path that is none": (LOSS.replace("dinomx_bad_loss:Spread", "dinomx_bad_loss.Spread"), HOOK + ": the build path of the loss \"spread\" is not \"module:attribute\": 'dinomx_bad_loss.Spread'" + AUTHOR),
    "has a class for a build path": (LOSS.replace('"dinomx_bad_loss:Spread"', "Spread"), HOOK + ": the build path of the loss \"spread\" is not \"module:attribute\": <class 'dinomx_bad.Spread'>" + AUTHOR),
    "yields it twice": (LOSS + LOSS[LOSS.index("    yield") :], HOOK + ': it yielded the loss "spread" twice' + AUTHOR),
    "takes a name of the core's": (LOSS.replace("Loss(", "Dataset(").replace("Loss,", "Dataset,").replace("dinomx_losses", "dinomx_datasets").replace('"spread"', '"digits"').replace("requests=lambda options: []", "inspect=len").replace("requests=lambda options: [Request(\"student\", \"global\")]", "inspect=len"), "dinomx_datasets(): the dataset \"digits\" is one of the core's, whose names nobody else may take" + AUTHOR),
    "takes a command of the core's": (BARE + "def dinomx_commands():\n    from dinomx_core import Command\n    yield Command('run', 'a:b', 'mine')", "dinomx_commands() raised ValueError: "),
}  # fmt: skip


def error_of(registry, name):
    return next(p.error for p in registry.plugins if p.name == name)


@pytest.mark.parametrize("way", BROKEN)
def test_a_broken_plugin_is_named_with_its_cause_and_remedy(install, tmp_path, way):
    import dinomx_core

    code, expected = BROKEN[way]
    expected = expected.replace("{place}", str(tmp_path / "dinomx_bad.py")).replace("{core}", dinomx_core.__file__)
    install("bad", code)
    registry = discover()
    said = error_of(registry, "bad")
    assert said == expected or (said.startswith(expected) and said.endswith(AUTHOR))
    assert registry.find("loss", "dino").name == "dino"
    assert f"(dinomx-bad 1.2)\n  BROKEN: {expected}" in as_text(registry)
    assert api.discover is not None


def test_all_of_them_together_stop_no_run(install, toy, capsys):
    ways = [*BROKEN.values(), *ODD.values()]
    for number, (code, _) in enumerate(ways):
        install(f"bad{number}", code and code.replace("dinomx_bad", f"dinomx_bad{number}"))
    assert len(ways) >= 50
    assert len([plugin for plugin in discover().plugins if plugin.error]) == len(ways)
    assert api.run(toy(run={"steps": 1})).figures is not None


USED = {
    "has no module to build it from": (LOSS.replace("dinomx_bad_loss", "dinomx_worse"), "", 'loss "spread" of dinomx-bad: cannot load dinomx_worse:Spread: ModuleNotFoundError: No module named \'dinomx_worse\''),
    "has no such part": (LOSS, "", 'loss "spread" of dinomx-bad: cannot load dinomx_bad_loss:Spread: AttributeError: module \'dinomx_bad_loss\' has no attribute \'Spread\''),
    "cannot be imported to be built": (LOSS, "1 / 0", 'loss "spread" of dinomx-bad: cannot load dinomx_bad_loss:Spread: ZeroDivisionError: division by zero ({place}:1)'),
    "needs a package to be built": (LOSS, "import not_there", 'loss "spread" of dinomx-bad: needs the package "not_there"; install that, or remove the plugin: pip uninstall dinomx-bad'),
    "is built with other arguments": (LOSS, "class Spread:\n    def __init__(self, options): pass", 'loss "spread" of dinomx-bad: dinomx_bad_loss:Spread cannot be built: TypeError: Spread.__init__() takes 2 positional arguments but 3 were given'),
    "fails when it is built": (LOSS, "def Spread(options, context):\n    return options.wish", 'loss "spread" of dinomx-bad: dinomx_bad_loss:Spread cannot be built: AttributeError: \'Spread\' object has no attribute \'wish\' ({place}:2)'),
    "fails when it is asked what it needs": (LOSS.replace('[Request("student", "global")]', "options.wish"), "", 'loss "spread" of dinomx-bad: its function `requests` failed: AttributeError: \'Spread\' object has no attribute \'wish\' ({plugin}:12)'),
    "fails when it is asked, with an error of the system's": (LOSS.replace('[Request("student", "global")]', "open('/not/there')"), "", 'loss "spread" of dinomx-bad: its function `requests` failed: FileNotFoundError: [Errno 2] No such file or directory: \'/not/there\' ({plugin}:12)'),
    "says a number when it is asked what it needs": (LOSS.replace('[Request("student", "global")]', "3"), "", 'loss "spread" of dinomx-bad: its function `requests` failed: TypeError: \'int\' object is not iterable'),
    "says a word when it is asked what it needs": (LOSS.replace('[Request("student", "global")]', '["global"]'), "", 'loss "spread" of dinomx-bad: its function `requests` gave \'global\', which does not belong there'),
    "asks for what there is not": (LOSS.replace('"global")', '"global", select="clss")'), "", "loss \"spread\" of dinomx-bad: its function `requests` failed: ValueError: 'select' must be in ('cls', 'patches', 'masked', 'all') (got 'clss') ({plugin}:12)"),
    "asks with a number for a word": (LOSS.replace('"student"', "3"), "", "loss \"spread\" of dinomx-bad: its function `requests` failed: TypeError: 'network' must be <class 'str'> (got 3 that is a <class 'int'>). ({plugin}:12)"),
    "gives nothing when it is built": (LOSS, "def Spread(options, context): pass", 'loss "spread" of dinomx-bad: dinomx_bad_loss:Spread gave nothing; it is to give what derives from dinomx_core.training.contracts.Loss'),
    "gives what is no loss": (LOSS, "class Spread:\n    def __init__(self, options, context): pass", 'loss "spread" of dinomx-bad: dinomx_bad_loss:Spread gave a Spread, which is no dinomx_core.training.contracts.Loss; it is to give what derives from dinomx_core.training.contracts.Loss'),
    "has a default that fails": (LOSS.replace('option(1.0, "how far")', "attrs.field(factory=lambda: 1 / 0)"), "", 'loss "spread" of dinomx-bad: its options cannot be read: ZeroDivisionError: division by zero ({plugin}:8)'),
    "has options that fail together": (LOSS.replace("\n@hookimpl", "    def __attrs_post_init__(self):\n        raise KeyError('q')\n@hookimpl"), "", "loss \"spread\" of dinomx-bad: its options cannot be read: KeyError: 'q' ({plugin}:10)"),
    "fails half-way when it is asked what is wrong": (LOSS.replace("requests=", "check=check, requests=") + "\ndef check(options, draft):\n    yield 'margin', 'is odd'\n    1 / 0", "", 'loss "spread" of dinomx-bad: its function `check` failed: ZeroDivisionError: division by zero ({plugin}:16)'),
}  # fmt: skip


@pytest.mark.parametrize("way", USED)
def test_one_that_is_wrong_when_it_is_used_is_named_then(install, toy, tmp_path, way):
    code, loss, expected = USED[way]
    install("bad", code, loss=loss)
    assert api.run(toy(run={"steps": 1, "name": "without"})).figures is not None
    with pytest.raises(PluginError) as caught:
        api.run(toy(loss={"spread": {}}))
    expected = expected.replace("{place}", str(tmp_path / "dinomx_bad_loss.py")).replace(
        "{plugin}", str(tmp_path / "dinomx_bad.py")
    )
    assert str(caught.value) == (expected if "; install" in expected else expected + AUTHOR)
    assert caught.value.exit_code == 2


UNREAD = {
    "is looked at wrongly": (LOSS.replace('"how far"', '"how far", check=lambda *given: 1 / 0'), "ZeroDivisionError: division by zero ({plugin}:8)"),
    "is of a type that TOML has not": (LOSS.replace("margin: float", "margin: type(len)"), "StructureHandlerNotFoundError: Unsupported type: "),
}  # fmt: skip


@pytest.mark.parametrize("way", UNREAD)
def test_an_option_that_cannot_be_read_is_named_with_its_package(install, toy, tmp_path, way):
    code, expected = UNREAD[way]
    install("bad", code)
    with pytest.raises(PluginError) as caught:
        api.plan(toy(loss={"spread": {"margin": 2.0}}))
    expected = expected.replace("{plugin}", str(tmp_path / "dinomx_bad.py"))
    assert str(caught.value).startswith(f'loss "spread" of dinomx-bad: its option "margin" cannot be read: {expected}')
    assert str(caught.value).endswith(AUTHOR)


def test_losses_that_ask_for_nothing_of_the_student_are_refused(install, toy):
    install("bad", LOSS.replace('[Request("student", "global")]', "[]"))
    with pytest.raises(ConfigError) as caught:
        api.plan({**toy(), "loss": {"spread": {}}})
    said = "loss.spread: asks for nothing of the student, so nothing would be learnt; add a loss that does"
    assert said in str(caught.value)


def test_every_kind_that_is_built_has_a_contract():
    assert set(CONTRACTS) == {kind.kind for kind in KINDS if hasattr(kind, "options")}
    for path in CONTRACTS.values():
        module, _, name = path.rpartition(".")
        assert isinstance(getattr(importlib.import_module(module), name), type)


def test_two_plugins_that_claim_one_component_are_both_named(install, toy):
    install("one", LOSS)
    install("two", LOSS)
    with pytest.raises(PluginError) as caught:
        discover().find("loss", "spread")
    assert str(caught.value) == (
        'loss "spread" is declared by dinomx-one (dinomx_one) and dinomx-two (dinomx_two); uninstall one of them: pip uninstall dinomx-two'
    )
    assert api.run(toy(run={"steps": 1})).figures is not None


def test_two_distributions_of_one_module(install):
    install("one", LOSS)
    install("two", None, module="dinomx_one")
    assert error_of(discover(), "two") == (
        "its module dinomx_one is that of dinomx-one, too; uninstall one of them: pip uninstall dinomx-two"
    )
    assert discover().find("loss", "spread").package == "dinomx-one"


def test_one_that_is_installed_twice_counts_once(install, tmp_path):
    install("spread", LOSS, folder=tmp_path / "old")
    install("spread", LOSS, folder=tmp_path / "new")
    assert len([plugin for plugin in discover().plugins if plugin.name == "spread"]) == 1
    assert discover().find("loss", "spread").summary == "Keep features apart."


def test_what_a_plugin_prints_or_imports_for_its_declarations_spoils_nothing(install, tmp_path):
    install("loud", "print('hello')\nimport sklearn\n" + LOSS)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ['dinomx', 'plugins', '--json']; import dinomx_core.cli as c; c.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loud = next(plugin for plugin in json.loads(done.stdout)["plugins"] if plugin["name"] == "loud")
    assert loud["notes"] == [
        "its declarations import sklearn: every command waits for that; its author can import it where the built part is"
    ]
    assert loud["components"][0]["name"] == "spread"


def test_what_a_declarations_functions_say_to_users_is_left_as_it_is(install):
    code = LOSS.replace("requests=", "check=check, requests=")
    install("good", code + "\ndef check(options, draft):\n    yield 'margin', 'is odd'\n")
    chosen = in_table("loss", {"name": "spread"})
    assert chosen.component.check(chosen.options, None) == [("margin", "is odd")]
    assert (chosen.component.package, discover().find("dataset", "digits").package) == ("dinomx-good", "")


MARKED = LOSS.replace("@hookimpl", "@hookimpl({})")
COMMAND = BARE + "def dinomx_commands():\n    from dinomx_core import Command\n    yield Command('hi', 'a:b', {})"
RECIPE = BARE + "def dinomx_recipes():\n    from dinomx_core import Recipe\n    yield Recipe('odd', {path!r}, 'Odd.')"
ODD = {
    "has a recipe of no path": (RECIPE.format(path="odd.toml"), "dinomx_recipes(): the path of the recipe \"odd\" is not \"package:file\": 'odd.toml'" + AUTHOR),
    "asks by what is no function": (LOSS.replace('lambda options: [Request("student", "global")]', "3"), HOOK + ': the requests of the loss "spread" is not a function: 3' + AUTHOR),
    "never stops": (BARE + "def dinomx_losses():\n    import itertools, attrs\n    from dinomx_core import Loss\n    for i in itertools.count():\n        yield Loss(f'l{i}', attrs.make_class('O', []), 'a:b', requests=len)", HOOK + ": it does not stop: more than 1000 declarations" + AUTHOR),
    "has a lazy module": (LOSS + "\ndef __getattr__(name):\n    raise ImportError('not yet')\n", "its module cannot be looked at: ImportError: not yet ({place}:15)" + AUTHOR),
    "marks a wrapper": (MARKED.format("hookwrapper=True"), HOOK + " is marked with hookwrapper=True, and hooks only declare; mark it with @hookimpl alone" + AUTHOR),
    "marks a wrapper of the new kind": (MARKED.format("wrapper=True"), HOOK + " is marked with wrapper=True, and hooks only declare; mark it with @hookimpl alone" + AUTHOR),
    "marks a function of another name": (MARKED.format("specname='dinomx_losses'").replace("def dinomx_losses", "def mine"), '"mine" is marked with specname="dinomx_losses"; a hook has its own name: def dinomx_losses()' + AUTHOR),
    "leaves a mark out": (LOSS + "\ndef dinomx_heads():\n    yield 3\n", "dinomx_heads() is not marked with @hookimpl" + AUTHOR),
    "has a module that does not list itself": (LOSS + "\ndef __dir__():\n    raise RuntimeError('no')\n", "its module cannot be looked at: RuntimeError: no ({place}:15)" + AUTHOR),
    "fails without words": ("class E(Exception):\n    def __str__(self): raise RuntimeError('no')\nraise E", "cannot import dinomx_bad: E ({place}:3)" + AUTHOR),
    "yields what has no words": (BARE + "def dinomx_losses():\n    class B:\n        def __repr__(self): raise RuntimeError('no')\n    yield B()", HOOK + ": it yielded <B instance at 0x"),
    "yields a great many": (BARE + "def dinomx_losses():\n    yield list(range(20000))", HOOK + ": it yielded [0, 1, 2, 3, 4, 5, ...], which does not belong there" + AUTHOR),
    "has a command without a summary": (COMMAND.format("''"), 'dinomx_commands(): the summary of the command "hi" is empty' + AUTHOR),
    "has a command whose summary is a number": (COMMAND.format("3"), 'dinomx_commands(): the summary of the command "hi" is not a text: 3' + AUTHOR),
    "has a recipe without a summary": (RECIPE.replace("'Odd.'", "None").format(path="a:odd.toml"), 'dinomx_recipes(): the summary of the recipe "odd" is not a text: None' + AUTHOR),
    "is deprecated by a number": (LOSS.replace("requests=", "deprecated=3, requests="), HOOK + ': the deprecated of the loss "spread" is not a text: 3' + AUTHOR),
    "has an option that every loss has": (LOSS.replace("margin:", "weight:"), HOOK + ': the option "weight" of the loss "spread" has the name of a key that every loss has; rename the option' + AUTHOR),
    "has an option that is every component's": (LOSS.replace("margin:", "name:"), HOOK + ': the option "name" of the loss "spread" has the name of a key that every loss has; rename the option' + AUTHOR),
    "has a default that all share": (LOSS.replace("margin: float = option(1.0", "margin: list[int] = attrs.field(default=[]").replace(', "how far"', ""), HOOK + ': the option "margin" of the loss "spread" has a list for a default, which all would share; write attrs.field(factory=list)' + AUTHOR),
    "has True for a version": (LOSS + "\nDINOMX_API = True\n", "it is made for version True of the plugin API, and this is 1; pip install --upgrade dinomx-bad"),
}  # fmt: skip


@pytest.mark.parametrize("way", ODD)
def test_odd_ones_are_named_too(install, tmp_path, way):
    code, expected = ODD[way]
    install("bad", code)
    said, expected = error_of(discover(), "bad"), expected.replace("{place}", str(tmp_path / "dinomx_bad.py"))
    assert said == expected or (expected.endswith("0x") and said.startswith(expected) and said.endswith(AUTHOR))
    assert discover().find("loss", "dino").name == "dino"


def test_an_entry_point_that_is_no_module(install, tmp_path):
    install("bad", LOSS)
    (tmp_path / "dinomx_bad-1.2.dist-info" / "entry_points.txt").write_text(
        "[dinomx.plugins]\nbad = dinomx_bad:hooks\n"
    )
    assert error_of(discover(), "bad") == 'its entry point "dinomx_bad:hooks" is not the name of a module' + AUTHOR


def test_one_that_was_half_removed_has_no_name(install, tmp_path):
    install("bad", LOSS)
    (tmp_path / "dinomx_bad-1.2.dist-info" / "METADATA").unlink()
    plugin = next(plugin for plugin in discover().plugins if plugin.name == "bad")
    assert (plugin.distribution, plugin.version) == ("unknown", "unknown")


def test_one_that_empties_the_path_hides_nobody(install):
    install("a", "import sys\nsys.path.clear()\n" + LOSS)
    install("b", LOSS.replace('"spread"', '"other"'))
    assert discover().find("loss", "other").package == "dinomx-b"


def test_one_that_goes_elsewhere_moves_nobody(install, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    install("a", "import os\nos.chdir('/')\n" + LOSS)
    install("b", "import os\nos.chdir('/')\n1 / 0")
    found = next(plugin for plugin in discover().plugins if plugin.name == "a")
    assert Path.cwd() == tmp_path
    assert found.notes == (
        "its declarations change the working directory, which was changed back; its author can leave that out",
    )
    assert [component.name for component in found.components] == ["spread"]


def test_a_name_that_is_not_found_may_be_a_broken_plugins(install):
    install("another", "1 / 0")
    install("dine", "1 / 0")
    broken = "broken plugins that may declare it: {} (see `dinomx plugins`)"
    both = "dinomx-another, dinomx-dine"
    for name, said in {
        "dine": 'did you mean "dino"?; ' + broken.format("dinomx-dine, dinomx-another"),
        "centering": '"centering" is a target; ' + broken.format(both),
    }.items():
        with pytest.raises(PluginError) as caught:
            discover().find("loss", name)
        assert str(caught.value) == f'no loss is called "{name}"; {said}'
    with pytest.raises(PluginError) as caught:
        discover().find("loss", "quantum")
    assert str(caught.value).endswith("; " + broken.format(both))


def test_a_recipe_without_its_file_is_named_with_its_package(install, toy):
    install("bad", RECIPE.format(path="dinomx_core:odd.toml"))
    with pytest.raises(ConfigError) as caught:
        api.plan({"recipe": "odd", **toy()})
    said = str(caught.value)
    assert 'recipe: recipe "odd" of dinomx-bad cannot be read from dinomx_core:odd.toml: FileNotFoundError' in said
    assert said.endswith(AUTHOR)
