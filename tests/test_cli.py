import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]


def dinomx(*arguments, cwd=TOP):
    code = "from dinomx_core.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(TOP), "NO_COLOR": "1", "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True
    )


def test_help_lists_the_commands():
    done = dinomx("--help")
    assert done.returncode == 0
    for command in ("run", "plan", "plugins"):
        assert command in done.stdout


def test_help_imports_neither_torch_nor_the_planning():
    code = "import sys; sys.argv = ['dinomx', '--help']; import atexit; atexit.register(lambda: print(sorted(sys.modules)))\n"
    code += "from dinomx_core.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=TOP, capture_output=True, text=True)
    loaded = done.stdout.splitlines()[-1]
    assert "'typer'" in loaded
    for module in ("'torch'", "'cattrs'", "'dinomx_core.api'", "'numpy'"):
        assert module not in loaded


def test_plan_prints_text_and_json(tmp_path):
    text = dinomx("plan", "examples/quickstart.toml", "--out", tmp_path)
    assert text.returncode == 0
    assert "Values and where they came from" in text.stdout
    told = json.loads(
        dinomx("plan", "examples/quickstart.toml", "--json", "--set", "run.batch_size=32", "--out", tmp_path).stdout
    )
    assert told["batch"]["images"] == 32
    assert not any(tmp_path.iterdir())


def test_plugins_prints_text_and_json():
    assert "dinomx-dinov1" in dinomx("plugins").stdout
    assert {p["name"] for p in json.loads(dinomx("plugins", "--json").stdout)["plugins"]} >= {"builtin", "dinov1"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["plan", "nothing.toml"], "error: nothing.toml: there is no such file\n"),
        (["run", "nothing.toml"], "error: nothing.toml: there is no such file\n"),
        (
            ["plan", "examples/quickstart.toml", "--set", "run.seed=-1"],
            "error: --set run.seed=-1: run.seed: must be 0 or more, got -1\n",
        ),
    ],
)
def test_bad_input_ends_with_2_and_no_traceback(arguments, expected):
    done = dinomx(*arguments)
    assert (done.returncode, done.stderr) == (2, expected)


def test_several_errors_are_all_printed():
    done = dinomx("plan", "examples/quickstart.toml", "--set", "run.seed=-1", "--set", "run.stepz=1")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "errors:",
        '--set run.stepz=1: run.stepz: unknown key; did you mean "steps"?',
        "--set run.seed=-1: run.seed: must be 0 or more, got -1",
    ]


@pytest.mark.slow
def test_run_prints_plain_lines_and_where_things_are(tmp_path):
    done = dinomx(
        "run", "examples/quickstart.toml", "--set", "run.steps=12", "--set", "run.batch_size=16", "--out", tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "step 12/12  loss" in done.stderr
    assert "knn/accuracy@20" in done.stderr
    assert f"run folder   {tmp_path}/quickstart" in done.stdout
    assert "dinomx_core.load" in done.stdout
    again = dinomx("run", "examples/quickstart.toml", "--set", "run.steps=12", "--out", tmp_path)
    assert again.returncode == 2
    assert (
        "holds a run already; go on with it by --resume, start anew with --overwrite, or choose another run.name or --out"
        in again.stderr
    )
