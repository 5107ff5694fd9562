"""The page in a browser: no script errors, nothing fetched, pictures visible, patches chosen by click, by key and by address."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from dinomx_core import api
from dinomx_interpret import explain
from dinomx_interpret.features import similarity
from dinomx_interpret.seeing import see
from tests.bright import save_bright

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="there is no chromium on this machine")
FIRST = "<script>window.faults = []; addEventListener('error', event => faults.push(event.message))</script>"
LAST = """<script>addEventListener('load', () => {
  const painted = number => {
    const canvas = document.querySelector(`#stage-${number} canvas`);
    const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    return { width: canvas.width, height: canvas.height, pixels: Array.from(data).filter((_, at) => at % 4 < 3) };
  };
  const state = () => ({
    hash: location.hash, chosen: document.getElementById('chosen').textContent, low: document.getElementById('low').textContent,
    label: document.getElementById('stage-1').getAttribute('aria-label'),
    frames: [0, 1].map(n => document.querySelector(`#stage-${n} .patch`).style.display), maps: [painted(0), painted(1)],
  });
  const told = { first: state() };
  const stage = document.getElementById('stage-1'), box = stage.getBoundingClientRect();
  const at = { bubbles: true, clientX: box.left + box.width * (CX), clientY: box.top + box.height * (CY) };
  stage.dispatchEvent(new MouseEvent('click', at));
  told.clicked = state();
  stage.dispatchEvent(new PointerEvent('pointermove', at));
  told.title = stage.title;
  stage.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowRight', bubbles: true }));
  told.moved = state();
  const cover = document.getElementById('cover');
  cover.value = 30;
  cover.dispatchEvent(new Event('input'));
  told.opacity = getComputedStyle(document.querySelector('canvas')).opacity;
  told.images = [...document.images].map(image => [image.naturalWidth, image.clientWidth, image.clientHeight, image.alt]);
  told.under = getComputedStyle(stage).backgroundImage.slice(0, 27);
  told.paper = getComputedStyle(document.body).backgroundColor;
  told.map = document.querySelector('.map img').currentSrc.length;
  told.fetched = performance.getEntriesByType('resource').map(entry => entry.name).filter(name => !name.startsWith('data:'));
  told.faults = faults;
  const probe = document.createElement('pre');
  probe.id = 'probe';
  probe.textContent = JSON.stringify(told);
  document.body.append(probe);
})</script>"""
GRIDS = ((5, 9), (9, 5))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A page of two images of different grids, its folder, and the exact features of both."""
    place = tmp_path_factory.mktemp("page")
    folder = save_bright(place / "model", "registers")
    rng = np.random.default_rng(0)
    files = []
    for number, (rows, columns) in enumerate(GRIDS):
        files.append(place / f"</script><b>{number}.png".replace("/", "-"))
        Image.fromarray(rng.integers(0, 256, (rows * 8, columns * 8, 3), dtype=np.uint8)).save(files[-1])
    (place / "set" / "a").mkdir(parents=True)
    (place / "set" / "b").mkdir()
    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(
            place / "set" / "ab"[number % 2] / f"{number}.png"
        )
    told = explain(folder, files, out=place / "out", size=40, map=place / "set", patch=(2, 3))
    model = api.model_of(folder)
    from dinomx_core.training.flow import Item
    from dinomx_core.training.images import from_pillow

    exact = [
        see(model, Item(from_pillow(Image.open(file))), (rows * 8, columns * 8), 0).patches
        for file, (rows, columns) in zip(files, GRIDS)
    ]
    return place / "out", told, exact


def opened(folder, tmp_path, address="", x="0.5", y="0.5", dark=False):
    """What the page tells after it was opened and clicked."""
    text = (folder / "index.html").read_text()
    text = text.replace('<meta charset="utf-8">', f'<meta charset="utf-8">{FIRST}', 1) + LAST.replace("CX", x).replace(
        "CY", y
    )
    (tmp_path / "page.html").write_text(text)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--window-size=1200,900"]
    flags += [f"--user-data-dir={tmp_path}/profile", *(["--force-dark-mode"] if dark else [])]
    done = subprocess.run(
        [BROWSER, *flags, "--dump-dom", f"file://{tmp_path}/page.html{address}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(html.unescape(found[1]))


def expected(exact, image, patch, low):
    """Colours of all images' similarity to one patch, as shares of the way from `low` to 1."""
    both = np.concatenate([exact[image][patch : patch + 1], *exact])
    values = similarity(both, 0)[1:]
    assert values.min() == pytest.approx(low, abs=0.006)
    return np.split((values - values.min()) / (1 - values.min()), [len(exact[0])])


def shares(drawn):
    """A painted canvas back to shares, by the places of its colours in the table."""
    from matplotlib import colormaps

    table = (colormaps["viridis"](np.arange(256))[:, :3] * 255).round()
    pixels = np.array(drawn["pixels"]).reshape(-1, 3)
    return np.abs(pixels[:, None] - table[None]).sum(-1).argmin(1) / 255


@pytest.mark.slow
@needs_browser
def test_the_page_works_in_a_browser(made, tmp_path):
    folder, told, exact = made
    found = opened(folder, tmp_path, x=str(3.5 / 5), y=str(7.5 / 9))
    assert found["faults"] == [] and found["fetched"] == []
    assert (
        len(found["images"]) == 2 * (1 + 8) + 1
    )  # the image; mean, head, rollout, 3 registers, components, clusters; the map
    for natural, width, height, alt in found["images"]:
        assert natural > 0 and width > 100 and height > 50 and alt
    assert found["under"].startswith('url("data:image/png;base64,')
    names = [image["name"] for image in told["images"]]
    for state, image, patch in (("first", 0, 2 * 9 + 3), ("clicked", 1, 7 * 5 + 3), ("moved", 1, 7 * 5 + 4)):
        drawn, columns = found[state], GRIDS[image][1]
        place = f"row {patch // columns}, column {patch % columns}"
        assert drawn["chosen"] == f"{names[image]}: {place}"
        assert drawn["frames"] == (["block", "none"] if image == 0 else ["none", "block"])
        assert drawn["label"] == f"{names[1]}: similarity to {place} of {names[image]}; arrow keys move the patch"
        for shown, wanted, (rows, wide) in zip(
            drawn["maps"], expected(exact, image, patch, float(drawn["low"])), GRIDS
        ):
            assert (shown["height"], shown["width"]) == (rows, wide)
            np.testing.assert_allclose(shares(shown), wanted, atol=0.01)
    assert found["first"]["hash"] == "" and found["moved"]["hash"] == "#image=1&patch=39"
    assert found["title"] == "row 7, column 3: similarity 1.00" and found["opacity"] == "0.3"


@pytest.mark.slow
@needs_browser
def test_the_address_chooses_a_patch_and_dark_screens_get_a_dark_page(made, tmp_path):
    folder, _, _ = made
    light = opened(folder, tmp_path, "#image=1&patch=11")
    dark = opened(folder, tmp_path, "#image=7&patch=900", dark=True)
    assert light["first"]["hash"] == "#image=1&patch=11" and light["first"]["chosen"].endswith(": row 2, column 1")
    assert (
        dark["first"]["chosen"].endswith("row 2, column 3") and dark["faults"] == []
    )  # there is no such image: the first stays
    assert (light["paper"], dark["paper"]) == ("rgb(255, 255, 255)", "rgb(20, 23, 26)")
    assert light["map"] != dark["map"]


def test_the_page_holds_all_it_needs_and_names_stay_texts(made):
    folder, told, _ = made
    text = (folder / "index.html").read_text()
    assert not re.search(r"""(src|href|srcset)="(?!data:)|@import|url\((?!data:|\$)|https?://""", text)
    assert text.count("</script>") == 2 and "<b>0.png" not in text and "&lt;b&gt;0.png" in text
    assert told["similarity_error"] < 1e-3 and told["similarity_features"] == 16
