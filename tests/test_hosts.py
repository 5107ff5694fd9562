"""Two hosts, as network namespaces of one machine."""

import os
import shutil
import subprocess
import time

import pytest

from dinomx_core import api
from dinomx_core.planning.document import to_toml
from dinomx_core.training.hosts import address_towards, interface_of, is_here
from tests.fixtures import TIMINGS, rows
from tests.test_launch import command, wait_for

pytestmark = pytest.mark.slow
PORT = 29871


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True)


@pytest.fixture
def hosts():
    """Two namespaces with a wire between them: 10.213.77.1 and 10.213.77.2."""
    names = [f"dinomx{os.getpid()}{end}" for end in "ab"]
    if not shutil.which("ip"):
        pytest.skip("there is no `ip` here to make network namespaces with")
    try:
        for name in names:
            ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces are not allowed here: {error.stderr.strip()}")
    try:
        ip("link", "add", "wire0", "netns", names[0], "type", "veth", "peer", "name", "wire1", "netns", names[1])
        for number, name in enumerate(names):
            ip("-n", name, "addr", "add", f"10.213.77.{number + 1}/24", "dev", f"wire{number}")
            ip("-n", name, "link", "set", f"wire{number}", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


def start(host, file, *settings):
    """`dinomx run` on a host."""
    changes = [word for setting in settings for word in ("--set", setting)]
    return command("dinomx", "run", file, *changes, before=["ip", "netns", "exec", host])


@pytest.fixture
def file(toy, tmp_path):
    def write(**parallelism):
        place = tmp_path / "hosts.toml"
        many = {
            "name": "ddp",
            "processes": 1,
            "hosts": 2,
            "address": f"10.213.77.1:{PORT}",
            "timeout": 60.0,
            **parallelism,
        }
        place.write_text(to_toml(toy(run={"steps": 30}, parallelism=many, checkpoint={"every": 10})))
        return place

    return write


@pytest.mark.parametrize("rendezvous", ["c10d", "static"])
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_hosts_train_one_run(hosts, file, tmp_path, toy, rendezvous, kind):
    place = file(name=kind, rendezvous=rendezvous)
    numbers = [[f"parallelism.host={number}"] if rendezvous == "static" else [] for number in range(2)]
    runs = [start(host, place, *settings) for host, settings in zip(hosts, numbers)]
    told = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], told
    api.run(toy(run={"steps": 30, "name": "alone"}, parallelism={"name": kind, "processes": 2}))
    both = [
        [{k: v for k, v in row.items() if k not in TIMINGS} for row in rows(tmp_path / "runs" / name / "metrics.jsonl")]
        for name in ("hosts", "alone")
    ]
    assert both[0] == both[1] and len(both[0]) == 30


def test_a_host_that_is_cut_off_ends_the_run_in_words_within_the_time_given(hosts, file, tmp_path):
    place = file(timeout=5.0, restarts=0)
    runs = [start(host, place, "run.steps=20000") for host in hosts]
    metrics = tmp_path / "runs" / "hosts" / "metrics.jsonl"
    wait_for(lambda: metrics.exists() and len(metrics.read_text().splitlines()) > 5)
    began = time.monotonic()
    ip("-n", hosts[1], "link", "set", "wire1", "down")
    told = [run.communicate(timeout=90)[1] for run in runs]
    assert time.monotonic() - began < 80
    for run, text in zip(runs, told):
        assert run.returncode == 3, text
        last = text.splitlines()[-1]
        assert last.startswith("error: ") and ("did not answer within parallelism.timeout" in last or "lost" in last), (
            text
        )


def test_hosts_that_do_not_come_are_said_to_be_missing(hosts, file, monkeypatch):
    run = start(hosts[0], file(), "parallelism.patience=5")
    _, errors = run.communicate(timeout=90)
    assert run.returncode == 3
    assert f"the hosts did not find each other at 10.213.77.1:{PORT} within 5 s" in errors


def test_addresses_of_this_host():
    assert is_here("localhost") and not is_here("203.0.113.7")
    assert address_towards("127.0.0.1", 1) == "127.0.0.1" and interface_of("127.0.0.1") == "lo"
    assert interface_of("203.0.113.7") == ""
