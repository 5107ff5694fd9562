"""Samples in tars: indexed once, read from their places, packed from any data set."""

import io
import json
import multiprocessing
import pickle
import resource
import signal
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from dinomx_core import ConfigError, DataError, DataInfo, Sampled, Stopped, api
from dinomx_core.builtin import cache, remote, tar_index, tar_samples
from dinomx_core.builtin.pack import pack, write_shards
from dinomx_core.builtin.sourced import ShardsData
from dinomx_core.builtin.sources import Shards, count_shards
from dinomx_core.declare.discover import discover
from dinomx_core.declare.values import Chosen
from dinomx_core.training.construct import construct
from dinomx_core.training.flow import Item
from tests import flat_files
from tests.fixtures import rows

REGISTRY = discover([flat_files])


def reader(name="flat"):
    return Chosen("reader", REGISTRY.find("reader", name), flat_files.Flat())


@pytest.fixture(autouse=True)
def cached(tmp_path, monkeypatch):
    """A cache of each test's own."""
    monkeypatch.setenv("DINOMX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_fetched", 0)
    remote._known.clear()
    yield
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def tar(place, files, mode="w", form=tarfile.PAX_FORMAT):
    """Write a tar of (name, bytes) pairs."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(place, mode, format=form) as archive:
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return place


def grey(number, kind=np.uint8):
    return np.full((1, 6, 7), number % 256 if kind == np.uint8 else number, kind)


def samples(numbers, ending="npy", **notes):
    """Files of some samples, each with its number as pixels."""
    for number in numbers:
        yield f"{number:04}.{ending}", npy(grey(number))
        if notes:
            yield f"{number:04}.json", json.dumps({name: make(number) for name, make in notes.items()}).encode()


# Reading ---------------------------------------------------------------------------------------------------------------


def test_samples_have_labels_groups_and_units_and_lie_in_order(tmp_path):
    for part in range(3):
        notes = {
            "label": lambda n: ["b", "a"][n % 2],
            "group": lambda n: f"p{n // 2}",
            "units": lambda n: "HU",
            "full": lambda n: [0, 9],
        }
        tar(tmp_path / f"{part}.tar", samples(range(part * 4, part * 4 + 4), **notes))
    options = Shards(str(tmp_path))
    info = count_shards(options)
    assert (info.count, info.channels, info.classes, info.notes, info.unreadable) == (12, 1, ("a", "b"), (), ())
    assert info.sampled == Sampled("uint8", 0.0, 11.0, "HU", (0.0, 9.0)) and len(info.digest) == 16
    data = ShardsData(options)
    assert [int(item.image[0, 0, 0]) for item in data] == list(range(12))
    item = data[5]
    assert (item.label, item.id, item.group, item.units, item.full) == (0, "1/0005", "p2", "HU", (0.0, 9.0))
    assert item.image.dtype == torch.uint8 and item.image.shape == (1, 6, 7)


def test_texts_numbers_and_jsons_give_labels(tmp_path):
    def files(label):
        return [
            file
            for n in range(11)
            for file in ((f"{n}.npy", npy(grey(n))), (f"{n}.cls", label(n)), (f"{n}.json", b'{"age": 70}'))
        ]

    tar(tmp_path / "numbers.tar", files(lambda n: b"%d\n" % n))
    assert count_shards(Shards(str(tmp_path / "numbers.tar"))).classes == tuple(map(str, range(11)))  # 10 after 9
    tar(tmp_path / "texts.tar", files(lambda n: b"dog" if n else b" "))
    info = count_shards(Shards(str(tmp_path / "texts.tar")))
    assert (info.classes, info.notes) == (("dog",), ("1 of 11 images have no label",))
    data = ShardsData(Shards(str(tmp_path / "texts.tar"), label="age"))
    assert data.samples.classes == ("70",) and data[3].label == 0
    with pytest.raises(DataError, match='^no sample has a "sex"; the first one\'s .json has age$') as caught:
        count_shards(Shards(str(tmp_path / "texts.tar"), label="sex"))
    assert caught.value.key == "label"


def test_images_go_through_the_reader_and_every_number_type_arrives(tmp_path):
    given = [np.array([[n]], kind) for n, kind in ((7, "u1"), (700, ">u2"), (-7, "<i2"), (0.5, "f8"), (True, "?"))]
    files = [(f"{n}.flat", npy(pixels)) for n, pixels in enumerate(given)]
    tar(tmp_path / "a.tar", [*files, ("5.npy", npy(grey(5))), ("5.json", b'{"units": "HU"}'), ("6.txt", b"no image")])
    options = Shards(str(tmp_path / "a.tar"), reader=reader())
    info = count_shards(options)
    assert info.unreadable == (f'{tmp_path}/a.tar: sample "6" has no image: .txt, none of .flat, .flat.gz, .npy',)
    assert info.sampled == Sampled("float64", -7.0, 700.0, "HU", None)
    found = [ShardsData(options)[n].image for n in range(6)]
    assert [image.dtype for image in found] == [
        torch.uint8,
        torch.uint16,
        torch.float32,
        torch.float32,
        torch.uint8,
        torch.uint8,
    ]
    assert [float(image[0, 0, 0]) for image in found] == [7, 700, -7, 0.5, 255, 5]
    item = ShardsData(options)[0]
    assert (item.units, item.full) == ("HU", (-1024.0, 3071.0))


def test_folders_lists_and_patterns_name_tars(tmp_path):
    for part in range(4):
        tar(tmp_path / "deep" / f"{part:02}.tar", samples([part]))
    for path in (f"{tmp_path}", f"{tmp_path}/deep/*.tar", f"{tmp_path}/deep/{{00..03}}.tar", f"file://{tmp_path}/deep"):
        assert [int(item.image.max()) for item in ShardsData(Shards(path))] == [0, 1, 2, 3], path
    both = Shards([f"{tmp_path}/deep/03.tar", f"{tmp_path}/deep/{{00..01}}.tar"])
    assert [item.id for item in ShardsData(both)] == ["03/0003", "00/0000", "01/0001"]
    with pytest.raises(DataError, match=rf"^names {tmp_path}/deep/03.tar more than once$"):
        count_shards(Shards([f"{tmp_path}", f"{tmp_path}/deep/03.tar"]))
    with pytest.raises(DataError, match=rf"^{tmp_path}/deep/04.tar: No such file or directory$"):
        count_shards(Shards(f"{tmp_path}/deep/{{00..04}}.tar"))


def test_names_are_split_at_the_first_dot_and_oddities_left_out(tmp_path):
    long = "x" * 150
    files = [
        ("./train/a.seg.npy", npy(grey(1))), ("./train/a.npy", npy(grey(2))), ("train/._a.npy", b"macOS"), ("README", b""),
        (f"train/{long}.NPY", npy(grey(3))), ("train/größe.npy", npy(grey(4))),
    ]  # fmt: skip
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        place = tar(tmp_path / f"{form}.tar", files, form=form)
        data = ShardsData(Shards(str(place)))
        assert [(item.id, int(item.image.max())) for item in data] == [
            (f"{form}/train/a", 2), (f"{form}/train/{long}", 3), (f"{form}/train/größe", 4)
        ]  # fmt: skip
        assert int(ShardsData(Shards(str(place), image="seg.npy"))[0].image.max()) == 1


def test_grey_and_colour_mix_only_where_it_is_said(tmp_path):
    tar(tmp_path / "a.tar", [("0.npy", npy(np.zeros((3, 4, 4), "u1"))), ("1.npy", npy(np.ones((1, 4, 4), "u1")))])
    with pytest.raises(
        DataError, match="^the images looked at have 1 and 3 channels; set channels = 3 or channels = 1$"
    ) as caught:
        count_shards(Shards(str(tmp_path / "a.tar")))
    assert caught.value.key == "channels"
    for channels in (1, 3):
        options = Shards(str(tmp_path / "a.tar"), channels=channels)
        assert count_shards(options).channels == channels
        assert {item.image.shape[0] for item in ShardsData(options)} == {channels}
    files = [(f"{n:02}.npy", npy(np.zeros((1 + 2 * (n == 1), 4, 4), "u1"))) for n in range(30)]
    tar(tmp_path / "b.tar", files)
    data = ShardsData(Shards(str(tmp_path / "b.tar")))  # which did not look at that one
    with pytest.raises(
        DataError, match="^b/01: has 3 channels where the data set has 1; set channels for all of them$"
    ):
        data[1]


# Faults ----------------------------------------------------------------------------------------------------------------


def test_tars_that_are_damaged_or_compressed_are_refused(tmp_path):
    whole = tar(tmp_path / "whole.tar", samples(range(5))).read_bytes()
    size, cut = len(whole), tmp_path / "cut.tar"
    for keep, after in ((3000, "0002.npy"), (4096, "0003.npy"), (300, "")):
        cut.write_bytes(whole[:keep])
        place = f'at or after "{after}"' if after else "at its beginning"
        with pytest.raises(
            DataError, match=rf"^{cut}: is cut off or damaged {place} \(byte \d+ of {keep}\); copy or write it again$"
        ):
            count_shards(Shards(str(cut)))
    cut.write_bytes(whole[:2048] + b"\x07" * 512 + whole[2560:])
    with pytest.raises(
        DataError, match=rf'^{cut}: is cut off or damaged at or after "0001.npy" \(byte 2048 of {size}\)'
    ):
        count_shards(Shards(str(cut)))
    tar(tmp_path / "packed.tar.gz", samples(range(2)), "w:gz")
    with pytest.raises(
        DataError, match=rf"is compressed, so that no sample can be read alone; unpack it: gunzip {tmp_path}/packed"
    ):
        count_shards(Shards(str(tmp_path / "packed.tar.gz")))
    (tmp_path / "text.tar").write_text("this is no tar" * 100)
    with pytest.raises(DataError, match=r"text.tar: is cut off or damaged at its beginning \(byte 0 of 1400\)"):
        count_shards(Shards(str(tmp_path / "text.tar")))
    tar(tmp_path / "empty.tar", [])
    with pytest.raises(DataError, match=r"empty.tar: holds no samples \(files such as 0001.png\)$"):
        count_shards(Shards(str(tmp_path / "empty.tar")))


def test_names_that_stand_there_twice_are_refused(tmp_path):
    a, b = npy(grey(1)), npy(grey(2))
    for name, files, message in (
        (
            "key",
            [("a.npy", a), ("b.npy", b), ("a.json", b"{}")],
            'has the sample "a" in two places; give samples names of their own',
        ),
        ("file", [("a.npy", a), ("a.NPY", b)], 'has the file "a.npy" twice; give samples names of their own'),
        (
            "images",
            [("a.flat", a), ("a.npy", b)],
            r'sample "a" has several images \(.flat, .npy\); set image = "flat" or another of them',
        ),
        (
            "dots",
            [(f"1.2.{n}.npy", a) for n in range(1001)],
            r"its files have more than 1000 endings, such as \".*\": all after the first dot",
        ),
    ):
        place = tar(tmp_path / f"{name}.tar", files)
        with pytest.raises(DataError, match=rf"^{place}: {message}"):
            count_shards(Shards(str(place), reader=reader()))


def test_samples_that_cannot_be_read_are_named(tmp_path):
    files = [
        ("a.flat", b"not flat"),
        ("b.flat", npy(grey(1))),
        ("b.json", b"{"),
        ("c.npy", b"no array"),
        ("d.npy", npy(grey(2))),
    ]
    place = tar(tmp_path / "t.tar", files)
    data = ShardsData(Shards(str(place), reader=reader()))
    for number, message in (
        (0, f"{place}: t/a.flat: is not flat; write it again"),
        (1, rf"{place}: t/b.json: is no JSON: Expecting property name"),
        (2, rf"{place}: t/c.npy: "),
    ):
        with pytest.raises(DataError, match=f"^{message}"):
            data[number]
    assert int(data[3].image.max()) == 2
    broken = tar(tmp_path / "broken.tar", [("a.npy", b"x"), ("b.npy", b"y")])
    with pytest.raises(
        DataError, match=rf"^none of the 2 images looked at \(of 2\) can be read; the first: {broken}: broken/a.npy: "
    ):
        count_shards(Shards(str(broken)))
    none = tar(tmp_path / "none.tar", [("a.jpg", b"x")])
    with pytest.raises(
        DataError, match=rf'^no sample has an image; the first: {none}: sample "a" has no image: .jpg, none of .npy$'
    ):
        count_shards(Shards(str(none)))


def test_readers_that_cannot_read_streams_or_say_no_ending_are_refused(tmp_path):
    place = tar(tmp_path / "t.tar", samples([1], "flat"))
    with pytest.raises(
        DataError, match='^"paths" reads files by their paths only, and samples of tars have none; name another'
    ):
        count_shards(Shards(str(place), reader=reader("paths")))
    with pytest.raises(
        DataError, match='^missing: "endless" does not say how its files end; give the ending of images$'
    ):
        count_shards(Shards(str(place), reader=reader("endless")))
    assert count_shards(Shards(str(place), image=".FLAT", reader=reader("endless"))).count == 1


def test_a_tar_that_changes_while_it_is_read_is_told(tmp_path):
    place = tar(tmp_path / "t.tar", samples(range(3)))
    data = ShardsData(Shards(str(place)))
    fresh = pickle.loads(pickle.dumps(data))
    data.samples._open.clear()
    tar(place, samples(range(300)))
    with pytest.raises(
        DataError, match=rf"^{place}: has \d+ bytes, and had \d+ when it was looked through; start again$"
    ):
        data[0]
    assert len(fresh) == 3 and len(pickle.loads(pickle.dumps(data))) == 300


# Indexes ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def scans(monkeypatch):
    """The tars whose headers were read."""
    seen = []
    scan = tar_index.scan
    monkeypatch.setattr(tar_index, "scan", lambda file, tar, *rest: seen.append(tar) or scan(file, tar, *rest))
    return seen


def test_a_tar_is_indexed_once_and_again_when_it_changed(tmp_path, scans):
    place = tar(tmp_path / "t.tar", samples(range(3), age=lambda n: n))
    for options in (Shards(str(place)), Shards(str(place), label="age"), Shards(str(place))):
        count_shards(options)
    assert scans == [str(place)] and (tmp_path / "t.tar.index").exists()
    first = count_shards(Shards(str(place)))
    tar(place, samples(range(4)))
    assert count_shards(Shards(str(place))).count == 4 and len(scans) == 2
    assert count_shards(Shards(str(place))).digest != first.digest
    (tmp_path / "t.tar.index").write_bytes(b"damaged")
    assert count_shards(Shards(str(place))).count == 4 and len(scans) == 3


def test_an_index_goes_to_the_cache_where_the_folder_cannot_be_written_to(tmp_path, scans, monkeypatch):
    place = tar(tmp_path / "t.tar", samples(range(3)))
    write = tar_index.write

    def refuse(index, where):
        if where.parent == tmp_path:
            raise PermissionError(13, "Permission denied")
        write(index, where)

    monkeypatch.setattr(tar_index, "write", refuse)
    for _ in range(3):
        assert count_shards(Shards(str(place))).count == 3
    assert scans == [str(place)] and len(list((tmp_path / "cache").glob("??/*-t.tar.index"))) == 1


def test_threads_and_copies_in_processes_read_alike(tmp_path):
    for part in range(6):
        tar(tmp_path / f"{part}.tar", samples(range(part * 50, part * 50 + 50)))
    data = ShardsData(Shards(str(tmp_path)))
    numbers = list(np.random.default_rng(0).permutation(300))

    def value(number):
        return int(data[number].image[0, 0, 0])

    data_open, tar_samples.OPEN = tar_samples.OPEN, 2  # tars are put away while others read them
    try:
        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(value, numbers)) == [number % 256 for number in numbers]
    finally:
        tar_samples.OPEN = data_open
    with multiprocessing.get_context("fork").Pool(2) as processes:
        found = processes.map(ValueOf(data), numbers)
    assert found == [number % 256 for number in numbers]


class ValueOf:
    """The first pixel of an image."""

    def __init__(self, data):
        self.data = data

    def __call__(self, number):
        return int(self.data[int(number)].image[0, 0, 0])


def test_looking_at_shards_imports_no_torch(tmp_path):
    tar(tmp_path / "t.tar", samples(range(3)))
    code = f"""
import sys
from dinomx_core.builtin.sources import Shards, count_shards
assert count_shards(Shards({str(tmp_path)!r})).count == 3
assert 'torch' not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def resident():
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.slow
def test_reading_ten_thousand_samples_needs_no_more_memory(tmp_path):
    picture = npy(np.zeros((1, 64, 64), "u1"))
    for part in range(20):
        tar(tmp_path / f"{part:02}.tar", ((f"{n:04}.npy", picture) for n in range(500)))
    data = ShardsData(Shards(str(tmp_path)))
    order = np.random.default_rng(0).permutation(len(data))
    for number in order[:500]:
        data[number]
    before = resident()
    for number in order:
        data[number]
    assert len(order) == 10_000 and resident() - before < 4 << 20  # the images take 40 MiB


# Elsewhere -------------------------------------------------------------------------------------------------------------


def upload(folder, url):
    for file in sorted(folder.iterdir()):
        if file.is_file():
            with fsspec.open(f"{url}/{file.name}", "wb") as out:
                out.write(file.read_bytes())


def test_shards_elsewhere_are_read_as_those_here(tmp_path, scans):
    for part in range(3):
        tar(tmp_path / "s" / f"{part}.tar", samples(range(part * 4, part * 4 + 4), label=lambda n: n % 2))
    upload(tmp_path / "s", "memory://s")
    here = [ShardsData(Shards(str(tmp_path / "s")))[n] for n in range(12)]
    scans.clear()
    for path in ("memory://s", "memory://s/{0..2}.tar", ["memory://s/0.tar", "memory://s/[12].tar"]):
        there = ShardsData(Shards(path))
        assert [item.id for item in there] == [item.id for item in here]
        assert all(torch.equal(one.image, other.image) and one.label == other.label for one, other in zip(there, here))
        assert count_shards(Shards(path)).digest == count_shards(Shards(str(tmp_path / "s"))).digest
    with pytest.raises(DataError, match="^memory://s/3.tar: there is no such object; check the name"):
        count_shards(Shards("memory://s/{0..3}.tar"))


def test_packed_shards_elsewhere_are_planned_from_their_indexes_and_one_tar(tmp_path, monkeypatch, scans):
    write_shards([Item(torch.full((1, 4, 4), float(n)), n % 2) for n in range(9)], tmp_path / "s", 3, ("a", "b"))
    upload(tmp_path / "s", "memory://s")
    scans.clear()
    fetched = []
    get = MemoryFileSystem.get_file
    monkeypatch.setattr(
        MemoryFileSystem, "get_file", lambda self, path, *rest: fetched.append(path) or get(self, path, *rest)
    )
    info = count_shards(Shards("memory://s"))
    assert (info.count, info.classes) == (9, ("a", "b"))
    assert scans == [] and [name for name in fetched if name.endswith(".tar")] == ["/s/000000.tar"]


# Packing ---------------------------------------------------------------------------------------------------------------


class Given:
    """A data set of given items; some cannot be read, some are files."""

    def __init__(self, items, files=None):
        self.items, self.files = items, files or {}

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        if isinstance(self.items[index], str):
            raise DataError(self.items[index])
        return self.items[index]

    def source(self, index):
        return self.files.get(index)


def assert_same_items(some, others):
    assert len(some) == len(others)
    for one, other in zip(some, others):
        assert torch.equal(one.image, other.image) and one.image.dtype == other.image.dtype
        facts = ("label", "id", "group", "units", "full", "channels")
        assert all(getattr(one, fact) == getattr(other, fact) for fact in facts), (one, other)


def items_of(count):
    generator = torch.Generator().manual_seed(0)
    made = [
        (torch.rand((2, 5, 4), generator=generator) * 65535).to((torch.uint8, torch.uint16, torch.float32)[n % 3])
        for n in range(count)
    ]
    return [
        Item(
            image,
            n % 2 if n % 4 else None,
            f"case/{n}",
            f"patient {n // 2}" if n > 3 else "",
            "HU",
            (0.0, 4095.0),
            (0, 2),
        )
        for n, image in enumerate(made)
    ]


def test_what_is_packed_comes_back_equal(tmp_path):
    items = items_of(10)
    info = DataInfo(10, 3, ("z", "a"), digest="d", names=("red", "green", "blue"))
    seen = []
    facts = pack(Given(items), info, tmp_path / "out", 4, lambda done, total: seen.append((done, total)))
    assert [(tar["name"], tar["samples"]) for tar in facts["tars"]] == [
        ("000000.tar", 4),
        ("000001.tar", 4),
        ("000002.tar", 2),
    ]
    assert seen[-1] == (10, 10) and json.loads((tmp_path / "out" / "shards.json").read_text()) == facts
    options = Shards(str(tmp_path / "out"))
    again = count_shards(options)
    assert (again.count, again.channels, again.classes, again.names) == (10, 3, ("z", "a"), ("red", "green", "blue"))
    assert again.notes == ("3 of 10 images have no label",)
    assert_same_items(list(ShardsData(options)), items)
    some = count_shards(Shards(str(tmp_path / "out" / "*1.tar")))
    assert some.classes == ("z", "a") and "1 tars are used, of 3 that shards.json names" in some.notes


def test_files_are_packed_byte_by_byte_where_the_data_set_offers_them(tmp_path):
    flat_files.write(tmp_path / "scan.v2.flat.gz", grey(700, np.int16))
    items = [
        Item(torch.full((1, 6, 7), 700.0), id="0", units="HU", full=(-1024.0, 3071.0)),
        Item(torch.ones(1, 6, 7), id="1", units="HU"),
    ]
    write_shards(Given(items, {0: tmp_path / "scan.v2.flat.gz"}), tmp_path / "out")
    with tarfile.open(tmp_path / "out" / "000000.tar") as archive:
        assert archive.getnames() == ["000000000.flat.gz", "000000000.json", "000000001.npy", "000000001.json"]
        assert archive.extractfile("000000000.flat.gz").read() == (tmp_path / "scan.v2.flat.gz").read_bytes()
    assert_same_items(list(ShardsData(Shards(str(tmp_path / "out"), reader=reader()))), items)


def test_packed_files_become_the_channels_of_the_data_set_and_need_no_known_ending(tmp_path):
    flat_files.write(tmp_path / "IM0001", grey(7))
    item = Item(torch.full((3, 6, 7), 7, dtype=torch.uint8), id="0", units="HU", full=(-1024.0, 3071.0))
    pack(Given([item], {0: str(tmp_path / "IM0001")}), DataInfo(1, 3), tmp_path / "out", 10)
    for name in ("flat", "endless"):
        options = Shards(str(tmp_path / "out"), reader=reader(name))
        assert count_shards(options).channels == 3
        assert_same_items(list(ShardsData(options)), [item])
    with pytest.raises(DataError, match=r"the first: .*/000000.tar: 000000/000000000.bin: needs a reader; name one$"):
        count_shards(Shards(str(tmp_path / "out")))


def test_an_image_folder_is_packed_and_planned_from_its_tars(toy, image_folder, tmp_path):
    def plan(**data):
        return api.plan(toy(data={"split": None, **data}, augmentation={"mean": [0.5], "std": [0.3]}))

    folder = plan(name="image-folder", path=str(image_folder))
    images = construct(folder.spec.data)
    pack(images, folder.data, tmp_path / "out", 5)
    shards = plan(name="shards", path=str(tmp_path / "out"))
    assert (shards.data.count, shards.data.channels, shards.data.classes) == (12, 3, ("cats", "dogs"))
    assert shards.data.sampled == folder.data.sampled
    assert_same_items(list(construct(shards.spec.data)), [images[n] for n in range(12)])
    with tarfile.open(tmp_path / "out" / "000000.tar") as archive:
        assert archive.extractfile("000000000.png").read() == (image_folder / "cats" / "0.png").read_bytes()


def test_arrays_that_were_not_packed_are_the_readers_where_it_knows_them(tmp_path):
    from dinomx_core.builtin.data_options import ImageFiles

    image = Chosen("reader", REGISTRY.find("reader", "image"), ImageFiles())
    tar(tmp_path / "t.tar", [("0.npy", npy(np.zeros((6, 7, 3), "u1")))])
    assert count_shards(Shards(str(tmp_path / "t.tar"), reader=image)).channels == 3
    assert count_shards(Shards(str(tmp_path / "t.tar"), reader=reader())).channels == 6
    write_shards(items_of(3), tmp_path / "out")
    assert ShardsData(Shards(str(tmp_path / "out"), reader=image))[0].image.shape == (2, 5, 4)


def test_items_that_cannot_be_read_are_left_out_and_told(tmp_path):
    items = items_of(6)
    for number in (1, 2, 3):
        items[number] = f"slice {number}: is broken"
    facts = write_shards(Given(items), tmp_path / "out", 2, ("a", "b"))
    assert [(tar["samples"], tar["left_out"]) for tar in facts["tars"]] == [
        (1, ["slice 1: is broken"]), (0, ["slice 2: is broken", "slice 3: is broken"]), (2, [])
    ]  # fmt: skip
    kept = [item for item in items if not isinstance(item, str)]
    assert_same_items(list(ShardsData(Shards(str(tmp_path / "out")))), kept)
    with pytest.raises(DataError, match="^no item can be read; the first: bad$"):
        write_shards(Given(["bad", "worse"]), tmp_path / "none")


def files_in(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.endswith(".index")}


KILLED = """
import os, sys
from pathlib import Path
from dinomx_core.builtin import pack
from tests.test_webshards import Given, items_of

class Deadly(Given):
    def __getitem__(self, index):
        if index == int(sys.argv[2]):
            os.kill(os.getpid(), 9)
        return super().__getitem__(index)

pack.write_shards(Deadly(items_of(10)), Path(sys.argv[1]), 3, ("a", "b"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 7])
def test_packing_that_is_killed_leaves_whole_tars_and_goes_on(tmp_path, at):
    write_shards(Given(items_of(10)), tmp_path / "whole", 3, ("a", "b"))
    out = tmp_path / "cut"
    done = subprocess.run([sys.executable, "-c", KILLED, str(out), str(at)])
    assert done.returncode == -9 and not (out / "shards.json").exists()
    whole = sorted(file.name for file in out.glob("*.tar"))
    assert whole == [f"{n:06}.tar" for n in range(at // 3)]
    if whole:
        assert len(ShardsData(Shards(str(out)))) == 3 * len(whole)
    times = {name: (out / name).stat().st_mtime_ns for name in whole}
    write_shards(Given(items_of(10)), out, 3, ("a", "b"))
    assert {name: (out / name).stat().st_mtime_ns for name in whole} == times
    assert files_in(out) == files_in(tmp_path / "whole")


def test_packing_again_changes_nothing_and_other_data_are_refused(tmp_path):
    first = write_shards(Given(items_of(4)), tmp_path, 3, ("a", "b"))
    written = files_in(tmp_path)
    assert write_shards(Given(["not read"] * 4), tmp_path, 3, ("a", "b")) == first and files_in(tmp_path) == written
    message = rf"^{tmp_path}: holds shards of other data, or of another size \(shards.json\); choose another folder, or remove it$"
    with pytest.raises(DataError, match=message):
        write_shards(Given(items_of(5)), tmp_path, 3, ("a", "b"))
    (tmp_path / "shards.json").unlink()
    with pytest.raises(DataError, match=rf"^{tmp_path}: holds tars, but no shards.json; choose another folder$"):
        write_shards(Given(items_of(4)), tmp_path, 3, ("a", "b"))
    with pytest.raises(DataError, match="^samples of a tar must be 1 or more, got 0$"):
        write_shards(Given(items_of(4)), tmp_path, 0)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=rf"^{tmp_path}/file: cannot be written: File exists$"):
        write_shards(Given(items_of(4)), tmp_path / "file")


# Runs ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def digits(tmp_path):
    """Some digits, packed."""
    from dinomx_core.builtin.data_options import Digits
    from dinomx_core.builtin.digits import DigitsData

    data = DigitsData(Digits("test"))
    write_shards([data[n] for n in range(60)], tmp_path / "digits", 25, tuple("0123456789"))
    return tmp_path / "digits"


@pytest.mark.slow
def test_a_run_over_shards_is_the_same_with_any_number_of_workers_and_when_it_goes_on(toy, digits):
    from tests.test_resume import StopAt, assert_same

    def config(name, workers):
        data = {"name": "shards", "split": None, "path": str(digits), "reader": {"name": "flat"}}
        return toy(run={"name": name, "steps": 10}, data=data, loader={"workers": workers})

    runs = [api.run(config(f"w{workers}", workers), plugins=[flat_files]).folder for workers in (0, 2)]
    assert_same(*runs)
    assert len(rows(runs[0] / "metrics.jsonl")) == 10
    with pytest.raises(Stopped):
        api.run(config("cut", 2), plugins=[flat_files], progress=StopAt(4, signal.SIGTERM))
    assert_same(runs[0], api.run(config("cut", 0), plugins=[flat_files], resume=True).folder)


def test_the_plan_names_the_option_at_fault(toy, digits):
    def plan(**changes):
        data = {"name": "shards", "split": None, "path": str(digits), "reader": {"name": "flat"}, **changes}
        return api.plan(toy(data=data), plugins=[flat_files])

    assert plan(path=[str(digits / "000000.tar"), str(digits / "000001.tar")]).data.count == 50
    for changes, message in (
        ({"path": 3}, "data.path: expected a text or an array of texts, got 3"),
        ({"path": ["a", 3]}, "data.path: item 2: expected a text, got 3"),
        ({"path": str(digits / "none")}, f"data.path: {digits}/none: No such file or directory"),
        ({"label": "sex"}, 'data.label: no sample has a "sex"; the first one\'s .json has id, label'),
        ({"channels": 2}, "data.channels: expected one of 0, 1, 3, got 2"),
    ):
        with pytest.raises(ConfigError) as caught:
            plan(**changes)
        assert message in str(caught.value)
