"""Processes that `dinomx run`, torchrun or srun start: how they end, together."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import attrs
import pytest
import torch.distributed as dist

from dinomx_core import ConfigError, DataError, TrainingError, api
from dinomx_core.planning.document import to_toml
from dinomx_core.planning.plan import Env
from dinomx_core.planning.world import World, first_host, started, tasks_on
from dinomx_core.progress import Silent
from dinomx_core.running import resume_step
from dinomx_core.training import watch
from dinomx_core.training.watch import Outcome, Watch, watched
from tests import broken_strategy
from tests.fixtures import KNN, TIMINGS, rows

TOP = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def plain(folder):
    return [{k: v for k, v in row.items() if k not in TIMINGS} for row in rows(folder / "metrics.jsonl")]


def command(*words, before=(), **environment):
    """Start a command of the environment that runs the tests, in a process group of its own."""
    return subprocess.Popen(
        [*before, str(Path(sys.executable).with_name(words[0])), *map(str, words[1:])],
        env={**os.environ, "PYTHONPATH": str(TOP), **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def workers(session):
    """Processes of a session that `dinomx run` has started."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and b"dinomx_core.training.worker" in (entry / "cmdline").read_bytes():
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                found += [int(entry.name)] if parent == session else []
        except OSError:
            pass
    return sorted(found)


def wait_for(condition, seconds=90):
    """Until it is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


@pytest.fixture
def config(toy, tmp_path):
    """A function of changes -> config file of a run of many short steps on two processes."""

    def write(**changes):
        file = tmp_path / "many.toml"
        changes = {
            "parallelism": {"name": "ddp", "processes": 2, "timeout": 60.0}, "run": {"steps": 40},
            "checkpoint": {"every": 10}, **changes,
        }  # fmt: skip
        file.write_text(to_toml(toy(**changes)))
        return file

    return write


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_a_killed_process_is_started_again_and_the_run_ends_as_if_nothing_had_happened(config, tmp_path, kind):
    api.run(config(parallelism={"name": kind, "processes": 2}), out=tmp_path / "whole")
    process = command("dinomx", "run", config(parallelism={"name": kind, "processes": 2}), "--out", tmp_path / "killed")
    metrics = tmp_path / "killed" / "many" / "metrics.jsonl"
    wait_for(lambda: metrics.exists() and len(metrics.read_text().splitlines()) > 22)
    os.kill(workers(process.pid)[1], signal.SIGKILL)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "a process was lost: all are started again, for the 1. time" in errors and "going on from step" in errors
    assert plain(tmp_path / "killed" / "many") == plain(tmp_path / "whole" / "many")
    assert out.count("run folder") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_they_save_and_leave_and_go_on_later(config, tmp_path, number):
    file = config(run={"steps": 400})
    process = command("dinomx", "run", file)
    folder = tmp_path / "runs" / "many"
    wait_for(lambda: (folder / "metrics.jsonl").exists() and len(rows(folder / "metrics.jsonl")) > 5)
    ranks = workers(process.pid)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    done = len(rows(folder / "metrics.jsonl"))
    assert process.returncode == 4
    assert errors.splitlines()[-1] == (
        f"stopped: {number.name} after step {done} of 400; saved, and `--resume` goes on from there"
    )
    assert (folder / "checkpoints" / str(done)).is_dir()
    assert len(ranks) == 2 and not any(Path(f"/proc/{rank}").exists() for rank in ranks)
    assert resume_step(api.plan(file), Silent()) == done


@pytest.mark.parametrize(
    ("how", "rank", "kind", "message"),
    [
        ("data", 1, DataError, "rank 1: disk: cannot be read; mend it"),
        ("data", 0, DataError, "rank 0: disk: cannot be read; mend it"),
        ("memory", 1, TrainingError, "rank 1: step 5: out of memory"),
    ],
)
def test_an_error_of_one_process_ends_all_and_is_raised_with_its_rank(config, how, rank, kind, message):
    file = config(strategies=["broken"], strategy={"broken": {"how": how, "rank": rank}})
    with pytest.raises(kind) as error:
        api.run(file, plugins=[broken_strategy])
    assert str(error.value).startswith(message)
    assert not workers(os.getpid())


def test_what_nobody_foresaw_keeps_its_traceback_and_starts_nothing_again(config, capfd):
    file = config(strategies=["broken"], strategy={"broken": {"how": "bug"}})
    with pytest.raises(Exception, match="nobody foresaw this") as error:
        api.run(file, plugins=[broken_strategy])
    assert str(error.value).startswith("rank 1:\nTraceback") and "broken_parts.py" in str(error.value)
    assert "Traceback" not in capfd.readouterr().err


def test_a_process_that_does_not_answer_ends_the_run_within_the_time_given(config):
    file = config(
        strategies=["broken"], strategy={"broken": {"how": "hang"}},
        parallelism={"name": "ddp", "processes": 2, "timeout": 8.0, "restarts": 0},
    )  # fmt: skip
    began = time.monotonic()
    with pytest.raises(TrainingError, match=r"did not answer within parallelism.timeout .*--resume"):
        api.run(file, plugins=[broken_strategy])
    assert time.monotonic() - began < 60 and not workers(os.getpid())


def test_torchrun_starts_the_same_run(config, tmp_path):
    file = config(evaluate=KNN, run={"steps": 6}, parallelism={"name": "ddp"})
    process = command(
        "torchrun", "--nproc-per-node", "2", "-m", "dinomx_core", "run", file, "--out", tmp_path / "theirs"
    )
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert out.count("run folder") == 1 and errors.count("step 6/6") == 1
    api.run(config(evaluate=KNN, run={"steps": 6}), out=tmp_path / "ours")
    assert plain(tmp_path / "theirs" / "many") == plain(tmp_path / "ours" / "many")


def test_srun_starts_the_same_run(config, tmp_path):
    file = config(run={"steps": 6}, parallelism={"name": "ddp"})
    slurm = {
        "SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_NODEID": "0",
    }  # fmt: skip
    ranks = [command("dinomx", "run", file, SLURM_PROCID=str(n), SLURM_LOCALID=str(n), **slurm) for n in range(2)]
    (out, errors), (quiet, silent) = (rank.communicate(timeout=120) for rank in ranks)
    assert ranks[0].returncode == ranks[1].returncode == 0, errors + silent
    assert "run folder" in out and "step 6/6" in errors and quiet == silent == ""
    assert len(plain(tmp_path / "runs" / "many")) == 6


def test_an_error_under_srun_ends_the_others_and_is_printed_once(config, tmp_path):
    file = config(
        run={"steps": 6, "batch_size": 8},
        data={"name": "image-folder", "path": str(tmp_path / "images"), "split": None},
    )
    from PIL import Image

    (tmp_path / "images").mkdir()
    for number in range(8):
        Image.new("L", (20, 20)).save(tmp_path / "images" / f"{number}.png")
    for number in range(7):
        (tmp_path / "images" / f"{number}.png").write_bytes(b"broken")
    slurm = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_ID": str(os.getpid() + 1), "SLURM_STEP_NODELIST": "localhost"}
    ranks = [command("dinomx", "run", file, SLURM_PROCID=str(n), SLURM_LOCALID=str(n), **slurm) for n in range(2)]
    told = [rank.communicate(timeout=120)[1] for rank in ranks]
    assert ranks[0].returncode == ranks[1].returncode == 2, told
    assert sum(text.count("images cannot be read, more than loader.max_unreadable") for text in told) == 1, told


def test_who_tells_an_error_waits_until_a_slow_process_has_heard_it():
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    first, slow = (Watch(World(2, rank, rank, 2, "srun", f"localhost:{store.port}"), None) for rank in range(2))
    for each in (first, slow):  # without their threads, as if those got no core
        each.store = store
        each.connected.set()
    told = []
    thread = threading.Thread(target=lambda: told.append(first.publish(Outcome("rank 0: lost", "DataError"))))
    thread.start()
    thread.join(2.0)
    assert thread.is_alive()
    assert not slow.publish(Outcome("rank 1: lost", "DataError"))
    thread.join(5.0)
    assert told == [True]


def test_who_has_ended_need_not_hear_an_error_and_no_thread_is_left_in_the_store(monkeypatch):
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    ranks = [World(2, rank, rank, 2, "srun", f"localhost:{store.port}") for rank in range(2)]
    monkeypatch.setattr(watch, "RUNS", Counter())
    before = threading.active_count()
    with watched(ranks[0], None) as ended:
        ended.connected.wait()
    assert store.add(ended.heard, 0) == 1
    with watched(ranks[0], None) as again:
        again.connected.wait()
    assert again.heard != ended.heard  # a second run of the same processes
    with watched(ranks[1], None) as other:
        other.connected.wait()
    with pytest.raises(DataError), watched(ranks[1], None):
        raise DataError("broken")
    assert (store.add(again.heard, 0), threading.active_count()) == (2, before)
    monkeypatch.setattr(watch, "HEARD", 0.2)
    with pytest.raises(DataError), watched(attrs.evolve(ranks[1], size=3, attempt=1), None):  # the third never hears
        raise DataError("broken")
    assert threading.active_count() == before


def test_worlds_are_read_from_what_started_them():
    assert started({}) is None
    assert started({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}) is None  # in the batch script itself
    found = started(
        {
            "RANK": "3",
            "WORLD_SIZE": "4",
            "LOCAL_RANK": "1",
            "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "a",
            "MASTER_PORT": "1",
        }
    )
    assert found == World(4, 3, 1, 2, "torchrun", "a:1")
    found = started({
        "SLURM_STEP_NUM_TASKS": "11", "SLURM_PROCID": "9", "SLURM_LOCALID": "1", "SLURM_NODEID": "2",
        "SLURM_STEP_TASKS_PER_NODE": "4(x2),3", "SLURM_STEP_NODELIST": "gpu[07-09]", "SLURM_JOB_ID": "41234567",
    })  # fmt: skip
    assert found == World(11, 9, 1, 3, "srun", "gpu07:34567")
    assert [first_host(n) for n in ("gpu[07-09,12],big1", "a,b", "node-3", "x[1,5]y")] == ["gpu07", "a", "node-3", "x1"]
    assert [tasks_on("4(x2),3", n) for n in range(3)] == [4, 4, 3]


@pytest.mark.parametrize(
    ("changes", "world", "gpus", "expected"),
    [
        ({"processes": 16}, None, 0, "run.batch_size: 8 images for 16 processes; each needs one at least: enlarge it, or start fewer"),
        ({"processes": 3}, None, 0, "run.batch_size: 8 does not divide over 3 processes x 1 accumulated micro-batches; use 9"),
        ({"backend": "nccl"}, None, 0, 'parallelism.backend: "nccl" carries tensors of GPUs, and the run is on "cpu"; take "auto"'),
        ({"processes": 4}, 2, 0, 'parallelism.processes: 4, but torchrun started 2 processes; leave it at "auto"'),
        ({"hosts": 2}, None, 0, 'parallelism.address: 2 hosts need a place to meet: "HOST:PORT" of one of them, the same on all'),
        ({"hosts": 2, "address": "gpu01"}, None, 0, 'parallelism.address: expected "HOST:PORT", got "gpu01"'),
        (
            {"hosts": 2, "address": "gpu01:1234", "rendezvous": "static"}, None, 0,
            "parallelism.host: is missing; a static rendezvous needs each host's number, 0 to 1, for example "
            "--set parallelism.host=0 on the one whose address it is",
        ),
        ({"processes": "all"}, None, 0, 'parallelism.processes: expected a whole number or "auto", got "all"'),
        ({"processes": 0}, None, 0, "parallelism.processes: must be > 0, got 0"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(toy, changes, world, gpus, expected):
    started = World(world, 0, 0, world, "torchrun", "localhost:1") if world else None
    env = Env("cpu", 2, "3.11", {"dinomx": "0"}, started, gpus)
    with pytest.raises(ConfigError) as error:
        api.plan(toy(parallelism={"name": "ddp", **changes}), env=env)
    assert f"config: {expected}" in [str(problem) for problem in error.value.problems]


def test_gpus_are_one_a_process_and_gloo_is_not_for_them(toy):
    env = Env("cuda", 8, "3.11", {"dinomx": "0"}, None, 2)
    config = toy(run={"device": "auto"}, parallelism={"name": "ddp"})
    assert api.plan(config, env=env).batch.world_size == 2
    for changes, message in (
        ({"backend": "gloo"}, '"gloo" carries tensors of CPUs, and the run is on GPUs; take "auto" or "nccl"'),
        ({"processes": 4}, "4 processes, but there are 2 GPUs; each needs its own"),
    ):
        with pytest.raises(ConfigError, match=message):
            api.plan(toy(run={"device": "auto"}, parallelism={"name": "ddp", **changes}), env=env)


def test_one_process_is_no_answer_to_many_that_were_started(toy):
    env = Env("cpu", 2, "3.11", {"dinomx": "0"}, World(2, 0, 0, 2, "srun", "localhost:1"), 0)
    with pytest.raises(
        ConfigError, match='srun started 2 processes, but "single" is one; set name = "ddp" or "fsdp", or start one'
    ):
        api.plan(toy(), env=env)


def test_a_port_that_is_taken_is_told_before_anything_starts(config):
    import socket

    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        changes = {
            "name": "ddp",
            "processes": 1,
            "hosts": 2,
            "rendezvous": "static",
            "host": 0,
            "address": f"localhost:{port}",
        }
        with pytest.raises(ConfigError, match=f"port {port} cannot be opened .*; choose another"):
            api.run(config(parallelism=changes))
