"""`report.html`: what it holds, what it leaves out, that it disturbs nothing, and that a browser opens it."""

import html
import json
import os
import re
import shutil
import signal
import subprocess

import numpy as np
import pytest
from PIL import Image

from dinomx_core import Stopped, TrainingError, api
from dinomx_core.testing.processes import group
from dinomx_core.training.report import pictures, record
from dinomx_core.training.report.curves import MOST, Curve
from tests.fixtures import KNN, TIMINGS, rows
from tests.test_resume import StopAt, assert_same, left_by

OFTEN = {"knn": {**KNN["knn"], "every": 2}}
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def page_of(folder):
    return (folder / "report.html").read_text()


def curves_of(folder):
    """Points by figure as the page's script has them."""
    found = re.search(r'<script type="application/json" id="curves">(.*?)</script>', page_of(folder), re.DOTALL)
    return json.loads(found[1])["figures"]


def drawn(folder):
    return sorted(file.name for file in (folder / "pictures").glob("*.*g"))


def plain(folder):
    """The page's text."""
    return html.unescape(
        re.sub(r"<[^>]+>", " ", re.sub(r"<(style|script).*?</\1>", "", page_of(folder), flags=re.DOTALL))
    )


class Notes:
    """A watcher that keeps what it is told."""

    def __init__(self):
        self.texts = []

    def start(self, plan): ...
    def step(self, row): ...
    def evaluated(self, step, figures): ...
    def close(self): ...

    def note(self, text):
        self.texts.append(text)


def test_figures_of_the_page_are_those_of_the_rows(toy):
    folder = api.run(toy(evaluate=OFTEN)).folder
    found, text = curves_of(folder), page_of(folder)
    for kind in ("metrics", "evaluations"):
        written = rows(folder / f"{kind}.jsonl")
        for name in (
            {name for row in written for name in row} - {"step"} - ({"seconds"} if kind == "evaluations" else set())
        ):
            wanted = [(row["step"], row[name]) for row in written if name in row]
            steps, values = found.pop(f"{kind}/{name}")
            assert steps == [step for step, _ in wanted] and values == pytest.approx([v for _, v in wanted], rel=1e-5)
            assert f'data-figure="{kind}/{name}"' in text
    assert found == {}
    assert text.index("evaluations/knn/accuracy@5") < text.index("metrics/loss") < text.index("metrics/effective_rank")
    best = max(row["knn/accuracy@5"] for row in rows(folder / "evaluations.jsonl"))
    told = " ".join(plain(folder).split())
    assert f"Best knn/accuracy@5 {best:.4g} at step" in told
    assert "State done all steps done Steps 4 / 4 32 images seen, 0.0223 passes over the data" in told
    assert 'dinomx_core.run("config.toml")' in told and "checkpoints checkpoints/3, checkpoints/4" in told
    assert "export export/, which AutoModel.from_pretrained opens" in told
    assert "optimizer" in told and "torch 2." in told and "digits" in told


def test_pictures_are_the_same_images_at_every_look(toy):
    learning = {"optimizer": {"lr": 0.1}, "teacher": {"momentum": 0.1}}
    folder = api.run(toy(report={"count": 2, "every": 2}, **learning)).folder
    assert drawn(folder) == sorted(
        [f"image-{n}.png" for n in (1, 2)]
        + [f"crop-{n}-{crop}.png" for n in (1, 2) for crop in (1, 2, 3, 4)]
        + [f"crop-{n}-whole.jpg" for n in (1, 2)]
        + [f"{step}-{n}-{kind}.png" for step in (0, 2, 4) for n in (1, 2) for kind in ("attention", "pca")]
    )
    assert Image.open(folder / "pictures" / "0-1-pca.png").size == (96, 96)  # 4 x 4 patches
    assert page_of(folder).count("data:image/") == len(drawn(folder))
    before, after = ((folder / "pictures" / f"{step}-1-attention.png").read_bytes() for step in (0, 4))
    assert before != after


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_the_report_changes_nothing_of_the_run(toy, workers):
    change = {"loader": {"workers": workers}, "evaluate": OFTEN}
    one = api.run(toy(run={"name": "with"}, report={"every": 1}, **change)).folder
    two = api.run(toy(run={"name": "without"}, report={"enabled": False}, **change)).folder
    assert_same(one, two)
    assert not (two / "report.html").exists() and not (two / "pictures").exists()


def test_no_pixel_of_any_image_where_these_are_not_wanted(toy):
    folder = api.run(toy(report={"images": False}, evaluate=OFTEN)).folder
    assert not (folder / "pictures").exists() and not [*folder.rglob("*.png"), *folder.rglob("*.jpg")]
    text = page_of(folder)
    assert "data:image" not in text and "<img" not in text and "What it sees" not in text
    assert "evaluations/knn/accuracy@5" in text


def test_pictures_of_a_run_that_goes_on_without_them_are_deleted(toy):
    with pytest.raises(Stopped):
        api.run(toy(), progress=StopAt(2, signal.SIGTERM))
    folder = api.plan(toy()).run_dir
    assert drawn(folder)
    api.run(toy(report={"images": False}), resume=True)
    assert not (folder / "pictures").exists() and "<img" not in page_of(folder)


@pytest.fixture
def patients(image_folder):
    """The folder of images with names that nobody may see."""
    for name in ("cats", "dogs"):
        for number, file in enumerate(sorted((image_folder / name).iterdir())):
            file.rename(file.with_name(f"Mustermann-{number}.png"))
        (image_folder / name).rename(image_folder / f"ward-{name}")
    return image_folder


def test_hashes_take_the_place_of_names(toy, patients):
    data = {"name": "image-folder", "path": str(patients), "split": None, "channels": 1}
    config = toy(data=data)
    shown = plain(api.run(config).folder)
    assert "Mustermann-" in shown and "ward-cats" in shown and str(patients) in shown
    config = toy(data=data, report={"hash_ids": True}, run={"name": "hidden"})
    folder = api.run(config).folder
    text = page_of(folder) + (folder / "pictures" / "pictures.json").read_text()
    assert not [name for name in ("Mustermann", "ward-", str(patients)) if name in text]
    assert len(re.findall(r"<b>[0-9a-f]{10}</b>", text)) == 4
    assert re.search(r"data\.path = '[0-9a-f]{10}'", plain(folder)) and "image-folder" in text


def test_errors_name_no_files_where_names_are_hidden(toy, patients):
    data = {"name": "image-folder", "path": str(patients), "split": None, "channels": 1}
    for file in sorted(patients.rglob("*.png"))[1:]:
        file.write_bytes(file.read_bytes()[:200])
    config = toy(data=data, report={"hash_ids": True}, loader={"max_unreadable": 0.1})
    with pytest.raises(Exception, match="Mustermann"):
        api.run(config)
    folder = api.plan(config | {"loader": {"max_unreadable": 1.0}}).run_dir
    text = " ".join(plain(folder).split())
    assert "State failed DataError: left out, since report.hash_ids is true" in text and "Mustermann" not in text


def test_a_failure_in_drawing_is_told_once_and_stops_nothing(toy, monkeypatch):
    def broken(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(pictures.Pictures, "paint", broken)
    monkeypatch.setattr(record, "page", broken)
    notes = Notes()
    folder = api.run(toy(), progress=notes).folder
    assert [text for text in notes.texts if "full" in text] == [
        "pictures: OSError: the disk is full; the run goes on without",
        "report: OSError: the disk is full; the run goes on without",
    ]
    assert len(rows(folder / "metrics.jsonl")) == 4 and not (folder / "report.html").exists()


def test_a_failure_before_the_first_look_is_told_once_too(toy, monkeypatch):
    monkeypatch.setattr(pictures.Pictures, "draw", lambda *_: 1 / 0)
    notes = Notes()
    folder = api.run(toy(), progress=notes).folder
    told = "pictures: ZeroDivisionError: division by zero; the run goes on without"
    assert notes.texts.count(told) == 1 and "State done" in " ".join(plain(folder).split())


def test_a_run_that_fails_leaves_a_report_that_says_why(toy):
    config = toy(run={"steps": 20}, optimizer={"lr": 1e30})
    with pytest.raises(TrainingError):
        api.run(config)
    folder = api.plan(config).run_dir
    text = " ".join(plain(folder).split())
    assert re.search(r"State failed TrainingError: step \d+: the loss is not finite", text) and "Steps" in text


@pytest.mark.slow
def test_a_run_that_goes_on_has_the_pictures_and_curves_of_one_that_never_stopped(toy):
    change = {"evaluate": OFTEN, "report": {"every": 1}, "checkpoint": {"every": 2}}
    whole = api.run(toy(run={"name": "whole"}, **change)).folder
    config = toy(run={"name": "cut"}, **change)
    with pytest.raises(Stopped):
        api.run(config, progress=StopAt(3, signal.SIGTERM))
    cut = api.plan(config).run_dir
    assert "State stopped Stopped: SIGTERM after step 3 of 4" in " ".join(plain(cut).split())
    shutil.rmtree(cut / "checkpoints" / "3")  # so that it goes on from 2, before what was drawn last
    (cut / "pictures" / "3-1-pca.png").write_bytes(b"of a step that is made again")
    api.run(config, resume=True)
    assert drawn(cut) == drawn(whole)
    for name in drawn(whole):
        assert (cut / "pictures" / name).read_bytes() == (whole / "pictures" / name).read_bytes(), name
    timed = {f"{kind}/{name}" for kind in ("metrics", "evaluations") for name in TIMINGS}
    one, other = ({k: v for k, v in curves_of(folder).items() if k not in timed} for folder in (whole, cut))
    assert one == other and left_by(whole)[0] == left_by(cut)[0]


def test_verdicts_are_marked_at_their_step(toy, monkeypatch):
    from dinomx_core.training.health import Health, Verdict

    def step(self, row):
        return [Verdict("odd <b>", 2, "it <i>shakes</i>", "Hold it")] if row["step"] == 2 else []

    monkeypatch.setattr(Health, "step", step)
    folder = api.run(toy()).folder
    text = page_of(folder)
    assert "<b>1 · step 2 · odd &lt;b&gt;</b>: it &lt;i&gt;shakes&lt;/i&gt;. Hold it." in text
    where = f'<line class="verdict" x1="{52 + 2 / 4 * (460 - 10 - 52):.1f}"'
    assert text.count(where) == text.count('<figure class="chart"') > 8
    assert "Health 1 verdict odd <b>" in " ".join(plain(folder).split())


def test_backbones_without_attentions_are_drawn_by_their_features_alone(toy):
    backbone = {"name": "dinov3-convnext", "sizes": None, "width": None, "depth": None, "heads": None}
    backbone |= {"patch_size": None, "drop_path": None}
    config = toy(backbone=backbone, augmentation={"globals": {"size": 64}, "locals": {"size": 32}}, run={"steps": 1})
    config["backbone"] |= {"widths": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
    folder = api.run(config).folder
    assert not [name for name in drawn(folder) if "attention" in name] and "0-1-pca.png" in drawn(folder)
    assert "Attention is left out: this backbone has none to look at." in page_of(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_the_first_of_several_processes_draws_and_an_error_there_leaves_none_waiting(toy, name):
    config = toy(parallelism={"name": name}, report={"every": 2}, evaluate=OFTEN)
    figures = group(2)("tests.together:run", config)
    assert figures[0] and "State done" in " ".join(plain(api.plan(config).run_dir).split())
    folder = api.plan(config).run_dir
    assert [file for file in drawn(folder) if file.startswith("4-")] == sorted(
        f"4-{n}-{kind}.png" for n in (1, 2, 3, 4) for kind in ("attention", "pca")
    )
    assert group(2)("tests.together:run_without_drawing", config) == figures
    assert drawn(folder) == [] and "What it sees" not in page_of(folder)


def test_numbers_without_bounds_are_shown_by_their_middle(toy, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "scans").mkdir()
    for number in range(9):
        np.save(tmp_path / "scans" / f"{number}.npy", rng.normal(500, 90, (24, 24, 3)).astype(np.float32))
    data = {"name": "image-folder", "path": str(tmp_path / "scans"), "split": None, "channels": 3}
    folder = api.run(
        toy(
            data=data,
            intensity={"name": "z-score"},
            augmentation={"globals": {"jitter": 0.0}, "locals": {"jitter": 0.0}},
        )
    ).folder
    picture = np.asarray(Image.open(folder / "pictures" / "image-1.png"))
    assert picture.min() < 60 and picture.max() > 200 and 90 < picture.mean() < 165


def test_few_points_keep_every_extreme():
    curve, values = Curve(), [float((37 * n) % 1001) for n in range(100_000)]
    values[54_321], values[54_322] = 1e6, -1e6
    for step, value in enumerate(values):
        curve.add(step, value)
    raw = list(curve.raw())
    assert MOST / 2 <= len(curve.points) <= MOST and len(raw) <= 2 * MOST
    assert (54_321, 1e6) in raw and (54_322, -1e6) in raw and all(values[step] == value for step, value in raw)
    assert [step for step, _ in raw] == sorted(step for step, _ in raw)
    assert sum(point.total for point in curve.points.values()) == pytest.approx(sum(values))
    assert curve.last == (99_999, values[-1])


@pytest.mark.slow
def test_a_million_steps_of_many_figures_make_a_small_page(toy, tmp_path):
    from dinomx_core.training.report.page import page
    from dinomx_core.training.report.story import Story
    from dinomx_core.training.report.told import Telling

    plan = api.plan(toy(run={"steps": 1_000_000}))
    story = Story(plan, tmp_path, Telling(plan))
    names = ["loss", *(f"loss/{n}" for n in range(5)), *(f"part/{n}" for n in range(30))]
    for step in range(0, 1_000_000, 40):
        row = {"seconds": 0.1, "images_per_second": 80.0} | dict.fromkeys(names, step * 7919 % 1013 / 1013)
        story.add("metrics", {"step": step, **row})
    assert 200_000 < len(page(story, "running", "", {}).encode()) < 1_000_000


def test_looks_are_thinned_to_a_number_that_stays_small():
    looks = []
    for step in range(0, 5000, 7):
        looks = pictures.thinned([*looks, step])
        assert len(looks) <= pictures.LOOKS and looks[0] == 0 and looks[-1] == step


FIRST = "<script>window.faults = []; addEventListener('error', event => faults.push(event.message))</script>"
LAST = """<script>addEventListener('load', () => {
  const chart = document.querySelector('[data-figure="metrics/loss"]'), svg = chart.querySelector('svg'), box = svg.getBoundingClientRect();
  const told = { before: chart.querySelector('.now').textContent };
  const x = box.left + box.width * (52 + 2 / 4 * (460 - 10 - 52)) / 460;
  svg.dispatchEvent(new PointerEvent('pointermove', { bubbles: true, clientX: x, clientY: box.top + 40 }));
  told.over = chart.querySelector('.now').textContent;
  svg.dispatchEvent(new PointerEvent('pointerleave'));
  told.after = chart.querySelector('.now').textContent;
  told.images = [...document.images].map(image => [image.naturalWidth, image.clientWidth, image.alt]);
  told.curves = [...document.querySelectorAll('svg .line')].map(line => line.getTotalLength());
  const texts = [...document.querySelectorAll('.chart svg')].map(svg => [...svg.querySelectorAll('text')].map(t => t.getBoundingClientRect()));
  told.touching = texts.flatMap(boxes => boxes.flatMap((a, n) => boxes.slice(n + 1).filter(b =>
    a.left < b.right && b.left < a.right && a.top + 2 < b.bottom && b.top + 2 < a.bottom))).length;
  told.wider = document.documentElement.scrollWidth - innerWidth;
  told.paper = getComputedStyle(document.body).backgroundColor;
  told.fetched = performance.getEntriesByType('resource').map(entry => entry.name).filter(name => !name.startsWith('data:'));
  told.faults = faults;
  const probe = document.createElement('pre');
  probe.id = 'probe';
  probe.textContent = JSON.stringify(told);
  document.body.append(probe);
})</script>"""


def opened(folder, place, dark=False, wide=1280):
    """What the page tells in a browser."""
    text = page_of(folder).replace('<meta charset="utf-8">', f'<meta charset="utf-8">{FIRST}', 1) + LAST
    (place / "page.html").write_text(text)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", f"--window-size={wide},900"]
    flags += [f"--user-data-dir={place}/profile", *(["--force-dark-mode"] if dark else [])]
    done = subprocess.run(
        [BROWSER, *flags, "--dump-dom", f"file://{place}/page.html"], capture_output=True, text=True, timeout=120
    )
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(html.unescape(found[1]))


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="there is no chromium on this machine")
def test_the_page_works_in_a_browser_without_a_network(toy, tmp_path):
    folder = api.run(toy(evaluate=OFTEN)).folder
    light, dark = opened(folder, tmp_path), opened(folder, tmp_path, dark=True, wide=620)
    losses = [row["loss"] for row in rows(folder / "metrics.jsonl")]
    for found in (light, dark):
        assert found["faults"] == [] and found["fetched"] == [] and found["touching"] == 0
        assert len(found["images"]) == len(drawn(folder))
        for natural, shown, told in found["images"]:
            assert natural > 0 and shown > 40 and told
        assert min(found["curves"]) > 50 and found["wider"] <= 0
        assert found["before"] == found["after"] == f"{losses[3]:.5g} at step 3"
        assert found["over"].startswith(f"{losses[2]:.5g}"[:5]) and found["over"].endswith(" at step 2")
    assert (light["paper"], dark["paper"]) == ("rgb(255, 255, 255)", "rgb(20, 23, 26)")


def test_nothing_is_fetched_and_no_path_of_this_machine_is_told(toy):
    text = page_of(api.run(toy()).folder)
    assert not re.search(r"""(src|href|srcset)="(?!data:)|@import|url\((?!data:)|https?://""", text)
    assert os.sep + "proc" not in text


def test_dinomx_data_obeys_the_same_switches(toy, patients, tmp_path):
    data = {"name": "image-folder", "path": str(patients), "split": None, "channels": 1}
    told = api.measure(toy(data=data, report={"images": False, "hash_ids": True}), out=tmp_path / "seen")
    text = (tmp_path / "seen" / "index.html").read_text() + json.dumps(told)
    assert "ward-" not in text and "Mustermann" not in text and "<img" not in text
    assert not (tmp_path / "seen" / "sheet.png").exists()
