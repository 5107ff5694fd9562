"""Files that lie elsewhere: fetched once, whole, by whoever wants them, into a cache that stays below its bound."""

import io
import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from dinomx_core import DataError, api
from dinomx_core.builtin import cache, remote
from dinomx_core.training.construct import construct


class Slow(LocalFileSystem):
    """Files of this machine that come slowly; notes each that is fetched."""

    protocol = "slow"
    cachable = False

    def get_file(self, rpath, lpath, **_):
        data = Path(self._strip_protocol(rpath)).read_bytes()
        with open(Path(self._strip_protocol(rpath)).parent / "log", "a") as log:
            log.write("fetched\n")
        with open(lpath, "wb") as file:
            for first in range(0, len(data), 1 << 16):
                file.write(data[first : first + (1 << 16)])
                time.sleep(0.02)


class Refusing(MemoryFileSystem):
    """Raises what a test gives it."""

    protocol = "refusing"
    cachable = False
    error: Exception = OSError()

    def info(self, path, **_):
        raise self.error


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    """The cache of each test, and nothing left in memory."""
    fsspec.register_implementation("slow", Slow, clobber=True)
    fsspec.register_implementation("refusing", Refusing, clobber=True)
    monkeypatch.setenv("DINOMX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_fetched", 0)
    remote._known.clear()
    yield tmp_path
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def put(name, data):
    with fsspec.open(name, "wb") as file:
        file.write(data)


def cached(folder):
    return sorted(file.name for file in (folder / "cache").glob("??/*"))


def test_plain_paths_and_file_urls_are_handed_back_and_need_no_fsspec(files):
    assert remote.local("some/where.png") == Path("some/where.png")
    assert remote.local(f"file://{files}/a.png") == files / "a.png"
    assert remote.local("C:\\a.png") == Path("C:\\a.png") and remote.local("odd::name.png") == Path("odd::name.png")
    assert not (files / "cache").exists()
    code = "import sys; from dinomx_core.builtin import remote; remote.local('a'); remote.local('file:///a')\n"
    code += "assert not {'fsspec', 'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_object_is_fetched_once_and_again_when_it_changed(files, monkeypatch):
    put("memory://b/a.tar.png", b"one")
    first = remote.local("memory://b/a.tar.png")
    assert first.read_bytes() == b"one" and first.name.endswith("-a.tar.png") and first.stat().st_mode & 0o444 == 0o444
    monkeypatch.setattr(MemoryFileSystem, "get_file", lambda *a, **k: pytest.fail("fetched twice"))
    assert remote.local("memory://b/a.tar.png") == first
    monkeypatch.undo()
    monkeypatch.setenv("DINOMX_CACHE", str(files / "cache"))
    put("memory://b/a.tar.png", b"two")
    assert remote.local("memory://b/a.tar.png") == first  # looked up a moment ago
    monkeypatch.setattr(remote, "LOOK_AGAIN", 0.0)
    assert remote.local("memory://b/a.tar.png").read_bytes() == b"two"
    assert remote.stamp("memory://b/a.tar.png")[0] == 3


def fetch(url):
    return remote.local(url).read_bytes()


def test_threads_and_processes_that_want_the_same_get_all_of_it_and_fetch_it_once(files):
    data = os.urandom(1 << 20)
    (files / "big.bin").write_bytes(data)
    url = f"slow://{files}/big.bin"
    with ThreadPoolExecutor(4) as threads, multiprocessing.get_context("fork").Pool(3) as processes:
        elsewhere = [processes.apply_async(fetch, (url,)) for _ in range(3)]
        found = list(threads.map(fetch, [url] * 4))
        assert all(one == data for one in [*found, *(result.get(60) for result in elsewhere)])
    assert (files / "log").read_text() == "fetched\n"
    assert len(cached(files)) == 1


def test_a_download_that_is_cut_off_leaves_nothing(files, monkeypatch):
    put("memory://b/a.bin", b"all of it")
    monkeypatch.setattr(MemoryFileSystem, "get_file", lambda self, path, draft: Path(draft).write_bytes(b"all"))
    with pytest.raises(DataError, match=r"^memory://b/a.bin: 3 of 9 bytes came; try again$"):
        remote.local("memory://b/a.bin")
    assert cached(files) == []


def test_a_process_that_is_killed_while_it_fetches_is_in_nobodys_way(files):
    (files / "big.bin").write_bytes(bytes(3 << 20))
    url = f"slow://{files}/big.bin"
    process = multiprocessing.get_context("fork").Process(target=fetch, args=(url,))
    process.start()
    while not (files / "log").exists():
        time.sleep(0.01)
    process.kill()
    process.join()
    assert len(cached(files)) == 1 and cached(files)[0].endswith(".draft")
    assert remote.local(url).stat().st_size == 3 << 20


def test_what_was_not_used_for_longest_goes_first_and_what_was_handed_out_stays(files, monkeypatch):
    monkeypatch.setenv("DINOMX_CACHE_GB", "1e-5")  # 10,000 bytes
    for number in range(10):
        put(f"memory://b/{number}", bytes(1000))
    got = [remote.local(f"memory://b/{number}") for number in range(10)]
    for number, file in enumerate(got):
        os.utime(file, (1000 + number, 1000 + number))
    opened = got[1].open("rb")
    remote.local("memory://b/0")  # used again, so the oldest is 1
    put("memory://b/new", bytes(1500))
    new = remote.local("memory://b/new")
    assert [file.exists() for file in got] == [True, *[False] * 4, *[True] * 5] and new.exists()
    assert opened.read() == bytes(1000)
    assert remote.local("memory://b/1").read_bytes() == bytes(1000)  # evicted, so fetched again
    monkeypatch.setenv("DINOMX_CACHE_GB", "1e-9")  # nothing fits, but all of it was just handed out
    for number in range(3):
        put(f"memory://c/{number}", bytes(10))
    assert all(file.exists() for file in [remote.local(f"memory://c/{number}") for number in range(3)])


def test_abandoned_drafts_go(files, monkeypatch):
    put("memory://b/a", bytes(100))
    remote.local("memory://b/a")
    place = next((files / "cache").glob("??"))
    for name, age in ((".old.draft", 2 * cache.ABANDONED), (".new.draft", 0)):
        (place / name).write_bytes(b"")
        os.utime(place / name, (time.time() - age,) * 2)
    cache.make_room(10**9)
    assert not (place / ".old.draft").exists() and (place / ".new.draft").exists()


class NoCredentialsError(Exception):
    """As botocore calls it."""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError("x"), "there is no such object; check the name, and that your login may see it"),
        (PermissionError("403"), "no access (PermissionError: 403); give the login that its storage asks for"),
        (
            NoCredentialsError("Unable to locate"),
            "no access (NoCredentialsError: Unable to locate); give the login that its storage asks for",
        ),
        (
            ConnectionRefusedError("refused"),
            "cannot be reached (ConnectionRefusedError: refused); check the network, or copy the data to a folder of this machine",
        ),
        (RuntimeError("what\nelse"), "cannot be read (RuntimeError: what)"),
    ],
)
def test_errors_name_the_url_the_cause_and_what_helps(error, message, monkeypatch):
    monkeypatch.setattr(Refusing, "error", error)
    with pytest.raises(DataError) as caught:
        remote.local("refusing://b/a.png", "weights")
    assert (str(caught.value), caught.value.key) == (f"refusing://b/a.png: {message}", "weights")


def test_logins_are_those_of_the_storage():
    error = remote.explained(PermissionError("403"), "s3://b/a", "path")
    assert str(error) == (
        "s3://b/a: no access (PermissionError: 403); set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )


def test_missing_packages_and_protocols_are_named(monkeypatch):
    for url, package in (("s3://b/a", "s3fs"), ("gs://b/a", "gcsfs"), ("az://b/a", "adlfs")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(
            DataError, match=rf"^{url}: needs {package}, which is not installed: pip install {package} \("
        ):
            remote.local(url)
    with pytest.raises(
        DataError, match=r'^odd://a: fsspec knows no protocol "odd://"; those that it knows are in fsspec\.'
    ):
        remote.local("odd://a")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(DataError, match=r"^s3://b/a: needs fsspec, which is not installed: pip install fsspec$"):
        remote.local("s3://b/a")


def test_a_cache_that_cannot_be_written_to_is_named(files, monkeypatch):
    (files / "cache").write_text("a file")
    put("memory://b/a", b"a")
    message = rf"^memory://b/a: the cache {files}/cache cannot be written to \(.*\); set DINOMX_CACHE to a folder with room, or DIN"
    with pytest.raises(DataError, match=message):
        remote.local("memory://b/a")
    monkeypatch.setenv("DINOMX_CACHE_GB", "lots")
    with pytest.raises(DataError, match='^DINOMX_CACHE_GB: expected a number of gigabytes above 0, got "lots"$'):
        cache.bound()


def test_the_cache_lies_below_xdg_cache_home_unless_it_is_said(files, monkeypatch):
    monkeypatch.delenv("DINOMX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(files))
    assert cache.folder() == files / "dinomx" / "files" and cache.bound() == 20 * 10**9


def test_folders_globs_and_braces_list_alike_here_and_elsewhere(files):
    for name in ("a/00.tar", "a/01.tar", "a/deep/02.TAR", "a/.03.tar", "a/.hidden/04.tar", "a/note.txt"):
        (files / "t" / name).parent.mkdir(parents=True, exist_ok=True)
        (files / "t" / name).write_bytes(b"")
        put(f"memory://t/{name}", b"")
    for top, base in ((f"{files}/t", f"{files}/t"), (f"file://{files}/t", f"{files}/t"), ("memory://t", "memory:///t")):
        assert remote.listing(f"{top}/a", [".tar"]) == [f"{base}/a/{n}" for n in ("00.tar", "01.tar", "deep/02.TAR")]
        assert remote.listing(f"{top}/a/0*.tar", [".tar"]) == [f"{base}/a/{n}" for n in ("00.tar", "01.tar")]
        assert [n.rpartition("/")[2] for n in remote.listing(f"{top}/a/{{00..2}}.tar", [".tar"])] == [
            "00.tar",
            "01.tar",
            "02.tar",
        ]
        assert remote.exists(f"{top}/a/00.tar") and not remote.exists(f"{top}/a/99.tar")
        with pytest.raises(DataError, match=r'/a/x\*.tar" matches no file$'):
            remote.listing(f"{top}/a/x*.tar", [".tar"])
        with pytest.raises(DataError, match=r'/a/deep" holds no files of .png$'):
            remote.listing(f"{top}/a/deep", [".png"])
    assert list(remote.braced("a/{x,y}{08..10}{z}.tar"))[:4] == [
        "a/x08{z}.tar",
        "a/x09{z}.tar",
        "a/x10{z}.tar",
        "a/y08{z}.tar",
    ]
    with pytest.raises(DataError, match="^memory://none: there is no such object; check the name"):
        remote.listing("memory://none", [".tar"])


def test_a_manifest_may_name_images_elsewhere(files, toy):
    table = ["path,label"]
    for number in range(6):
        stream = io.BytesIO()
        Image.fromarray(np.full((20, 20), 40 * number, np.uint8)).save(stream, "png")
        put(f"memory://b/{number}.png", stream.getvalue())
        table.append(f"memory://b/{number}.png,{'ab'[number % 2]}")
    (files / "m.csv").write_text("\n".join(table))
    data = {"name": "manifest", "path": str(files / "m.csv"), "split": None, "label": "label"}
    plan = api.plan(toy(data=data, run={"batch_size": 4}))
    assert (plan.data.count, plan.data.channels, plan.data.classes) == (6, 3, ("a", "b"))
    items = construct(plan.spec.data)
    assert [(int(items[n].image.max()), items[n].label) for n in range(6)] == [(40 * n, n % 2) for n in range(6)]
    put(
        "memory://b/m.csv", "\n".join(table).replace("memory://b/", "").encode()
    )  # an address itself, with names beside it
    beside = construct(api.plan(toy(data={**data, "path": "memory://b/m.csv"}, run={"batch_size": 4})).spec.data)
    assert [int(beside[n].image.max()) for n in range(6)] == [40 * n for n in range(6)]
