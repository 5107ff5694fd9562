"""`dinomx sweep`: every combination with every seed, and what becomes of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dinomx_core import ConfigError, Stopped, api
from dinomx_core.cli import app
from dinomx_core.planning.grid import as_toml, combinations, read_grid, split_values
from tests.fixtures import rows

TOP = Path(__file__).parents[1]


def refused(*arguments, **words):
    with pytest.raises(ConfigError) as error:
        api.sweep(*arguments, **words)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1e-4,1e-3", ["1e-4", "1e-3"]),
        ("[0.9, 0.99],[0.9, 0.999]", ["[0.9, 0.99]", "[0.9, 0.999]"]),
        ('"a,b",c', ['"a,b"', "c"]),
        ("{ start = 1, peak = 2 }, 3", ["{ start = 1, peak = 2 }", "3"]),
        ('["a]", "b,"],x', ['["a]", "b,"]', "x"]),
        ("1,,2", ["1", "", "2"]),
    ],
)
def test_commas_divide_values_but_not_lists_tables_and_texts(text, values):
    assert split_values(text) == values


def test_a_grid_is_read_from_texts_and_from_python():
    python = {"optimizer.lr": [1e-4, 1e-3], "optimizer.betas": [(0.9, 0.99)], "run.steps": ["2 passes"]}
    texts = ["optimizer.lr=0.0001,0.001", "optimizer.betas=[0.9, 0.99]", 'run.steps="2 passes"']
    assert read_grid(python, []) == read_grid(texts, [])
    assert as_toml({"start": 0.5, "on": True}) == '{ "start" = 0.5, "on" = true }'


def test_names_say_the_values_and_differ():
    axes = read_grid(
        ["optimizer.lr=1e-4,1e-3", "loss.ibot.weight=0.5", 'data.path="a/b","a-b"', "backbone.name=vit", "x.clip=-1"],
        [],
    )
    names = [combination.words for combination in combinations(axes)]
    assert names[1] == "lr=1e-4_ibot.weight=0.5_path=a-b_backbone.name=vit_clip=-1"
    assert names[0].startswith("lr=1e-4_ibot.weight=0.5_path=a-b+") and len(set(names)) == 4
    assert [c.words for c in combinations(read_grid(["optimizer.lr=1", "loss.lr=2"], []))] == [
        "optimizer.lr=1_loss.lr=2"
    ]
    assert all(
        len(c.words) < 120
        for c in combinations(read_grid([f"data.path={'a' * 90}{n}" for n in (1,)] + [f"b.c={'d' * 90}"], []))
    )


def test_every_fault_of_a_grid_is_told_at_once(toy):
    grid = [
        "optimizer.lr",
        "optimizer.clip=1,1.0",
        "run.seed=1,2",
        "backbone.depth=1,2",
        "loader.workers=0,,1",
        "loss.dino=1,2",
        "loss.dino.weight=1",
    ]
    assert refused(toy(), grid, overrides=["backbone.depth=2"]).splitlines() == [
        "--grid optimizer.lr: expected KEY=VALUE,VALUE, such as optimizer.lr=1e-4,1e-3",
        "--grid run.seed=1,2: run.seed: is no key of a grid; seeds are asked for by --seeds",
        "--grid backbone.depth=1,2: backbone.depth: backbone.depth is given by --set too; keep one of them",
        "--grid loader.workers=0,,1: expected KEY=VALUE,VALUE, such as optimizer.lr=1e-4,1e-3",
        "--grid loss.dino.weight=1: loss.dino.weight: loss.dino is given by --grid too; keep one of them",
    ]  # fmt: skip
    assert refused(toy(), ["optimizer.clip=1e-3,0.001"]) == (
        "--grid optimizer.clip=1e-3,0.001: optimizer.clip: 0.001 stands there twice (as 1e-3)"
    )
    assert refused(toy()) == "nothing to sweep over; give --grid KEY=VALUE,VALUE or --seeds N"
    assert refused(toy(), seeds=0) == "--seeds: expected one or more, got 0"


def test_faults_of_plans_are_told_before_anything_runs(toy, tmp_path):
    grid = ["optimizer.lr=1e-3,fast", "backbone.patch_size=4,5"]
    assert refused(toy(), grid, seeds=2, out=tmp_path / "s").splitlines() == [
        "config: augmentation.globals.size: global crops of 16 px are not a multiple of the patch (5 px); use 15 or 20 (run lr=1e-3_patch_size=5)",
        "config: augmentation.locals.size: local crops of 8 px are not a multiple of the patch (5 px); use 5 or 10 (run lr=1e-3_patch_size=5)",
        '--grid optimizer.lr=fast: optimizer.lr: expected a number or a table such as { peak = 1e-3, end = 1e-6, warmup = "10%" }, got "fast"',
    ]  # fmt: skip
    assert not (tmp_path / "s").exists()


@pytest.mark.slow
def test_a_sweep_trains_every_combination_with_the_same_seeds_and_records_it(toy, tmp_path):
    done = api.sweep(
        toy(run={"seed": 5, "steps": 2}), {"optimizer.lr": [1e-4, 1e-3]}, seeds=2, command="dinomx sweep x.toml"
    )
    folder = tmp_path / "runs" / "run-sweep"
    names = [f"lr={lr}_seed={seed}" for lr in ("0.0001", "0.001") for seed in (5, 6)]
    assert done["folder"] == str(folder) and [run["name"] for run in done["runs"]] == names
    assert [run["state"] for run in done["runs"]] == ["done"] * 4
    for run in done["runs"]:
        plan = json.loads((folder / run["name"] / "plan.json").read_text())
        told = {key: plan["values"][key]["value"] for key in ("run.seed", "optimizer.lr.peak")}
        assert told == {"run.seed": run["seed"], "optimizer.lr.peak": float(run["values"]["optimizer.lr"])}
    about = json.loads((folder / "sweep.json").read_text())
    assert (about["grid"], about["seeds"], about["command"]) == (
        {"optimizer.lr": ["0.0001", "0.001"]},
        [5, 6],
        "dinomx sweep x.toml",
    )
    assert [run["name"] for run in about["runs"]] == names and len(about["digest"]) == 16


def test_a_cut_sweep_goes_on_where_it_was_cut_and_leaves_what_is_done(toy, tmp_path):
    class Cut(api.Silent):
        """Is told to stop in the second run."""

        def __init__(self):
            self.notes = []

        def note(self, text):
            self.notes.append(text)

        def step(self, row):
            if sum(note.startswith("run ") for note in self.notes) == 2 and row["step"] == 2:
                import signal

                signal.raise_signal(signal.SIGUSR1)

    config, words = toy(run={"steps": 6}), {"seeds": 3, "out": tmp_path / "s"}
    with pytest.raises(Stopped, match=rf"; 1 of 3 runs of {tmp_path}/s are done$"):
        api.sweep(config, progress=Cut(), **words)
    first = (tmp_path / "s" / "seed=0" / "metrics.jsonl").stat().st_mtime_ns
    assert len(rows(tmp_path / "s" / "seed=1" / "metrics.jsonl")) == 3 and not (tmp_path / "s" / "seed=2").exists()
    again = Cut()
    again.step = lambda row: None
    done = api.sweep(config, progress=again, **words)
    assert [note for note in again.notes if not note.startswith("checkpoint")] == [
        "run 1 of 3: seed=0", "done already: 6 steps", "run 2 of 3: seed=1", "going on from step 3", "run 3 of 3: seed=2",
    ]  # fmt: skip
    assert [run["state"] for run in done["runs"]] == ["done"] * 3
    assert (tmp_path / "s" / "seed=0" / "metrics.jsonl").stat().st_mtime_ns == first
    assert len(rows(tmp_path / "s" / "seed=1" / "metrics.jsonl")) == 6


def test_a_run_that_fails_is_told_and_the_others_go_on(toy, tmp_path, monkeypatch):
    (tmp_path / "c.toml").write_text(api.to_toml(toy(run={"steps": 2}, optimizer={"clip": 0.0})))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["sweep", "c.toml", "--grid", "optimizer.lr=1e30,1e-3", "--out", "s", "--quiet"])
    assert "done         1 of 2 runs, in s" in done.stdout
    assert done.exception.exit_code == 3
    assert str(done.exception).splitlines()[0] == "1 of 2 runs failed; the same command tries them again"
    assert str(done.exception).splitlines()[1].startswith("s/lr=1e30_seed=0: ")
    assert (tmp_path / "s" / "lr=1e-3_seed=0" / "export" / "config.json").exists()


def test_a_bug_in_one_run_keeps_its_traceback_and_the_others_go_on(toy, tmp_path, monkeypatch):
    real, notes = api.run, []

    def broken(plans, **words):
        return real(plans, **words) if plans[0].seed else 1 / 0

    class Notes(api.Silent):
        def note(self, text):
            notes.append(text)

    monkeypatch.setattr(api, "run", broken)
    done = api.sweep(toy(run={"steps": 1}), seeds=2, out=tmp_path / "s", progress=Notes())
    assert [(run["state"], run["error"]) for run in done["runs"]] == [
        ("failed", "ZeroDivisionError: division by zero"), ("done", ""),
    ]  # fmt: skip
    assert any(note.startswith("failed: Traceback") for note in notes)


def test_a_sweep_grows_by_values_and_seeds_and_other_folders_are_refused(toy, tmp_path):
    config, out = toy(run={"steps": 1}), tmp_path / "s"
    api.sweep(config, ["optimizer.lr=1e-3"], seeds=1, out=out)
    api.sweep(config, ["optimizer.lr=1e-4"], seeds=2, out=out)
    about = json.loads((out / "sweep.json").read_text())
    assert about["grid"] == {"optimizer.lr": ["1e-3", "1e-4"]} and about["seeds"] == [0, 1]
    assert [run["name"] for run in about["runs"]] == ["lr=1e-3_seed=0", "lr=1e-4_seed=0", "lr=1e-4_seed=1"]
    assert (
        refused(config, ["optimizer.clip=1"], out=out)
        == f"--out: {out} holds a sweep over optimizer.lr; choose another folder"
    )
    assert refused(config, seeds=2, out=tmp_path) == f"--out: {tmp_path} holds other files; choose another folder"
    told = refused(toy(run={"steps": 1}, optimizer={"clip": 2.0}), ["optimizer.lr=1e-3"], out=out)
    assert told == (
        f"config: optimizer.clip: is 2.0 and was 0.0 in {out}/lr=1e-3_seed=0/plan.json; the run cannot go on with it: put it back, "
        "or start another with another run.name"
    )


@pytest.mark.slow
def test_the_slurm_script_runs_the_run_of_its_task(toy, tmp_path, monkeypatch):
    place = tmp_path / "a folder's"
    place.mkdir()
    (place / "c.toml").write_text(api.to_toml(toy(run={"steps": 2})))
    monkeypatch.chdir(place)
    done = CliRunner().invoke(
        app,
        [
            "sweep",
            "c.toml",
            "--grid",
            "optimizer.betas=[0.9, 0.99],[0.9, 0.999]",
            "--seeds",
            "2",
            "--out",
            "s",
            "--slurm",
        ],
    )
    assert done.stdout == "written      s/sweep.sbatch: 4 tasks; look it through, then sbatch it\n"
    script = place / "s" / "sweep.sbatch"
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    text = script.read_text()
    assert "#SBATCH --array=0-3\n" in text and "#SBATCH --signal=USR1@120\n" in text and "#SBATCH --requeue\n" in text
    assert (place / "s" / "slurm").is_dir() and not list((place / "s").glob("betas*"))
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "srun").write_text(
        '#!/bin/bash\necho "$@" >> ' + f"'{tmp_path}/called'\n" + '[ -n "$FAKE" ] && exit $FAKE\nexec "$@"\n'
    )
    (tools / "scontrol").write_text(f"#!/bin/bash\necho \"$@\" >> '{tmp_path}/requeued'\n")
    (tools / "dinomx").write_text(f'#!/bin/bash\nexec {sys.executable} -m dinomx_core "$@"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": f"{TOP}:{os.environ.get('PYTHONPATH', '')}",
    }

    def task(number, **more):
        variables = {**environment, "SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_JOB_ID": "77", **more}
        return subprocess.run(["bash", script], env=variables, cwd=tmp_path, capture_output=True, text=True)

    ran = task(1)
    assert ran.returncode == 0, ran.stderr
    made = [run["name"] for run in json.loads((place / "s" / "sweep.json").read_text())["runs"]]
    (found,) = (place / "s").glob("betas*")
    plan = json.loads((found / "plan.json").read_text())
    assert found.name == made[1] and plan["steps"] == 2 and plan["seed"] == 1
    assert plan["values"]["optimizer.betas"]["value"] == [0.9, 0.99]
    assert not (tmp_path / "requeued").exists()
    assert task(3, FAKE="4").returncode == 4
    assert (tmp_path / "requeued").read_text() == "requeue 77_3\n"
    assert "betas=0.9-0.999" in (tmp_path / "called").read_text().splitlines()[1]
    assert (task(4).returncode, task(4).stderr) == (2, "there is no run 4\n")


def test_commands_are_printed_and_nothing_is_written(toy, tmp_path, monkeypatch):
    (tmp_path / "c.toml").write_text(api.to_toml(toy()))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(
        app, ["sweep", "c.toml", "--grid", "optimizer.lr=1e-4", "--set", "run.steps=2", "--print", "--out", "s"]
    )
    assert done.stdout == (
        "dinomx run c.toml --set run.steps=2 --set optimizer.lr=1e-4 --set run.seed=0 --set 'run.name=\"lr=1e-4_seed=0\"' --set "
        "'run.out=\"s\"' --resume\n"
    )
    assert not (tmp_path / "s").exists()


def test_a_sweep_is_not_started_by_several_processes(toy, monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert refused(toy(), seeds=2) == (
        "a sweep starts its runs itself, and torchrun started 2 processes; call it once, or write a script with --slurm"
    )
