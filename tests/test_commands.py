"""Commands of plugins: found by declaration, imported when called, and clashes told."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dinomx_core import Command
from dinomx_core.cli import app
from dinomx_core.declare.commands import OWN_COMMANDS
from dinomx_core.declare.discover import discover

TOP = Path(__file__).parents[1]
PLUGIN = """
from dinomx_core import Command, hookimpl

@hookimpl
def dinomx_commands():
    yield Command("{name}", "dinomx_{package}_work:work", "Work on files.")
"""
WORK = '''
from pathlib import Path
from typing import Annotated
import typer

def work(files: list[Path], often: Annotated[int, typer.Option("--often", min=1, help="How often")] = 1) -> None:
    """Work on files."""
    if often == 3:
        from dinomx_core import DataError
        raise DataError("three is too often; take two")
    typer.echo(f"{often} {[str(file) for file in files]}")
'''


@pytest.fixture
def site(tmp_path):
    """A function that writes a distribution with a command as pip would leave it, and one that calls dinomx beside it."""

    def write(package, name="work", work=WORK):
        (tmp_path / f"dinomx_{package}.py").write_text(PLUGIN.format(name=name, package=package))
        (tmp_path / f"dinomx_{package}_work.py").write_text(work)
        info = tmp_path / f"dinomx_{package}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: dinomx-{package}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[dinomx.plugins]\n{package} = dinomx_{package}\n")

    def call(*arguments, code=""):
        path = os.pathsep.join((str(tmp_path), str(TOP), os.environ.get("PYTHONPATH", "")))
        environment = {**os.environ, "PYTHONPATH": path, "NO_COLOR": "1", "COLUMNS": "100"}
        start = f"{code}\nfrom dinomx_core.cli import main; main()"
        return subprocess.run(
            [sys.executable, "-c", start, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    return write, call


def test_a_plugins_command_is_listed_imported_when_called_and_fails_as_ours_do(site):
    write, call = site
    write("busy", work="print('imported')\n" + WORK)
    listed = call("--help")
    assert "  work     Work on files." in listed.stdout and "imported" not in listed.stdout
    assert call("work", "a.png", "b.png", "--often", "2").stdout == "imported\n2 ['a.png', 'b.png']\n"
    assert "--often" in call("work", "--help").stdout
    failed = call("work", "a.png", "--often", "3")
    assert (failed.returncode, failed.stderr) == (2, "error: three is too often; take two\n")
    assert call("work").returncode == 2


def test_commands_of_dinomx_itself_look_for_no_plugin(site):
    _, call = site
    spy = "from dinomx_core.declare import discover\ndiscover.discover = lambda *a: 1 / 0\n"
    done = call("export", "--help", code=spy)
    assert done.returncode == 0 and "Write a checkpoint" in done.stdout
    assert "ZeroDivisionError" in call("--help", code=spy).stderr


def test_two_packages_with_one_command_are_both_named_when_it_is_called(site):
    write, call = site
    write("one")
    write("two")
    done = call("work", "a.png")
    told = 'error: command "work" is declared by dinomx-one (dinomx_one) and dinomx-two (dinomx_two); uninstall one of them: pip uninstall dinomx-two\n'
    assert (done.returncode, done.stderr) == (2, told)
    assert call("--help").stdout.count("Work on files.") == 1


def test_a_command_of_dinomx_itself_cannot_be_taken(site):
    write, call = site
    write("bad", name="run")
    told = 'BROKEN: dinomx_commands() raised ValueError: "dinomx run" is a command of dinomx itself; give yours another name'
    assert told in call("plugins").stdout
    assert "Train as the config says." in call("run", "--help").stdout


def test_a_command_that_cannot_be_imported_says_so(site):
    write, call = site
    write("bad", work="import not_there")
    done = call("work")
    told = 'error: command "work" of dinomx-bad: needs the package "not_there"; install that, or remove the plugin: pip uninstall dinomx-bad\n'
    assert (done.returncode, done.stderr) == (2, told)


def test_a_command_that_is_no_function_says_so(site):
    write, call = site
    write("bad", work="work = 3")
    done = call("work")
    told = 'error: command "work" of dinomx-bad: dinomx_bad_work:work is no function: 3; tell the author of dinomx-bad, or remove it: pip uninstall dinomx-bad\n'
    assert (done.returncode, done.stderr) == (2, told)


def test_a_command_that_fails_keeps_its_traceback_and_says_whose_it_is(site):
    write, call = site
    write("bad", work="def work() -> None:\n    raise ValueError('no such slide')\n")
    done = call("work")
    assert done.returncode == 1 and "Traceback" in done.stderr
    assert done.stderr.endswith('ValueError: no such slide\nin the command "work" of dinomx-bad\n')


def test_a_command_that_is_merely_available_comes_with_its_pip_line(site):
    _, call = site
    row = 'Available("dinomx-interpret", "command", "explain", "Draw.")'
    without = (
        "from dinomx_core import cli_plugins as c\nfrom dinomx_core.declare.discover import Registry, Available\n"
        f"c.discover = lambda: Registry((), ({row},))"
    )
    done = call("explain", "runs/x", "a.png", code=without)
    told = 'error: command "explain" is not installed; install it with: pip install dinomx-interpret\n'
    assert (done.returncode, done.stderr) == (2, told)
    assert "explain" not in call("--help", code=without).stdout


def test_an_unknown_command_is_unknown(site):
    _, call = site
    done = call("rum")
    assert done.returncode == 2 and "No such command 'rum'. Did you mean 'run'?" in done.stderr


def test_the_names_that_are_taken_are_those_of_dinomx():
    ours = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert ours | {group.name for group in app.registered_groups} == set(OWN_COMMANDS)


def test_this_repositorys_commands_are_declared_without_torch():
    assert isinstance(discover().find("command", "explain"), Command)
