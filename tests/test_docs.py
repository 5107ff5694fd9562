"""Every TOML block plans, every Python block and command in README and docs runs, the reference is up to date."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dinomx_core.declare import components, hooks
from dinomx_core.training import contracts
from docs import plugin_api
from docs.generate import CHECKING, PAGE, checks, page
from tests.outside import findable

TOP = Path(__file__).parents[1]
PAGES = [
    TOP / "README.md",
    TOP / "CONTRIBUTING.md",
    *sorted((TOP / "docs").glob("*.md")),
    *sorted(TOP.glob("plugins/*/README.md")),
    *sorted(TOP.glob("examples/plugins/**/README.md")),
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
MAKE_TARGETS = set(re.findall(r"^(\w+):", (TOP / "Makefile").read_text(), re.MULTILINE))


def blocks(language):
    return [
        pytest.param(text, id=f"{path.relative_to(TOP)}-{number}")
        for path in PAGES
        for number, (found, text) in enumerate(BLOCK.findall(path.read_text()))
        if found == language
    ]


@pytest.fixture(scope="module")
def small_dinov2(tmp_path_factory):
    """A folder of DINOv2 weights, small and random."""
    from transformers import Dinov2Config, Dinov2Model

    folder = tmp_path_factory.mktemp("weights") / "dinov2-small"
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 56,
        "use_mask_token": False,
    }
    Dinov2Model(Dinov2Config(**sizes)).save_pretrained(folder)
    return folder


def marked(root, rng):
    """Images with findings, ages and masks."""
    (root / "findings").mkdir()
    for name, count in (("findings", 60), ("held-out-findings", 30)):
        lines = ["path,findings,age,mask"]
        for number in range(count):
            image, mask = (f"findings/{name}-{number}{end}.png" for end in ("", "-mask"))
            Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8)).save(root / image)
            Image.fromarray(rng.integers(0, 2, (40, 40), dtype=np.uint8)).save(root / mask)
            lines.append(f"{image},{('cyst', 'cyst;oedema', ';')[number % 3]},{30 + number},{mask}")
        (root / f"{name}.csv").write_text("\n".join(lines))


BASE = (
    'recipe = "dinov1-small"\nrun = { steps = 2, batch_size = 8 }\ndata = { name = "image-folder", path = "cells/" }\n'
)


@pytest.fixture
def place(tmp_path, monkeypatch, small_dinov2):
    """A folder with the images and configs that the pages speak of."""
    rng = np.random.default_rng(0)
    for folder in ("cells", "held-out-cells", "slices"):
        for label in ("a", "b"):
            (tmp_path / folder / label).mkdir(parents=True)
            for number in range(110 if folder == "cells" else 40):
                Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8)).save(
                    tmp_path / folder / label / f"{number}.png"
                )
    rows = [f"{path.relative_to(tmp_path)},{n // 4:03},f" for n, path in enumerate((tmp_path / "cells").rglob("*.png"))]
    (tmp_path / "cells.csv").write_text("\n".join(["path,patient,sex", *rows]))
    marked(tmp_path, rng)
    pictures = sorted((tmp_path / "slices").rglob("*.png"))
    for picture in pictures[::2]:
        mask = tmp_path / "masks" / picture.relative_to(tmp_path / "slices")
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.eye(40, dtype=np.uint8)).save(mask)
    names = [str(picture.relative_to(tmp_path / "slices")) for picture in pictures]
    lines = [f"slices/{name},{f'masks/{name}' if not n % 2 else ''}" for n, name in enumerate(names)]
    (tmp_path / "slices.csv").write_text("\n".join(["path,mask", *lines]))
    (tmp_path / "boxes.csv").write_text(f"image,left,top,width,height,class\n{names[0]},3,4,20,10,cell\n")
    for name in ("examples", "plugins", "tests"):
        os.symlink(TOP / name, tmp_path / name)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "digit.png")
    shutil.copytree(small_dinov2, tmp_path / "dinov2-small")
    texts = [block.values[0] for block in blocks("toml")]
    for name, mark in (
        ("config.toml", 'name = "cells"'),
        ("slices.toml", 'path = "slices/"'),
        ("warm.toml", "# warm.toml"),
        ("many.toml", "# many.toml"),
        ("eval.toml", "# eval.toml"),
        ("label-free.toml", "# label-free.toml"),
    ):
        (tmp_path / name).write_text(next(text for text in texts if mark in text))
    monkeypatch.chdir(tmp_path)
    paths = (str(TOP), findable(tmp_path / "outside"), os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    return tmp_path


@pytest.mark.parametrize("text", blocks("toml"))
def test_every_toml_block_plans(place, text):
    alone = re.match(r"(# .*\n)?\[evaluate\.", text)  # for `dinomx eval`
    (place / "block.toml").write_text(BASE + text if alone else text)
    done = subprocess.run(
        [sys.executable, "-c", "from dinomx_core.cli import main; main()", "plan", "block.toml"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def with_run(place):
    """The same, with the run and the export that the pages on models speak of."""
    from dinomx_core import api

    config = api.to_toml({"recipe": "dinov1-small", "data": {"name": "image-folder", "path": "cells/"}})
    (place / "cells.toml").write_text(config)
    run = api.run(place / "cells.toml", overrides=["run.steps=1", "run.batch_size=2", "backbone.depth=1"])
    api.export(run.folder, place / "exported" / "student")
    return place


def test_the_cifar_example_plans_wherever_its_images_are(place):
    from dinomx_core import api

    sets = [
        f"data.path={place}/cells",
        f"evaluate.knn.bank.path={place}/cells",
        f"evaluate.knn.query.path={place}/held-out-cells",
    ]
    sets += [f"evaluate.linear.bank.path={place}/cells", f"evaluate.linear.query.path={place}/held-out-cells"]
    plan = api.plan(TOP / "examples" / "cifar10.toml", overrides=[*sets, "evaluate.knn.k=[5]"])
    assert (plan.backbone.width, plan.backbone.depth, plan.backbone.heads, plan.backbone.patch_size) == (128, 6, 4, 4)
    assert [(view.name, view.size.plain) for view in plan.views] == [("global", 32), ("local", 16)]


@pytest.mark.parametrize("name", ["cifar10-dinov2", "cifar10-dinov3"])
def test_the_other_cifar_examples_differ_in_their_recipe_alone(place, name):
    from dinomx_core import api

    sets = [
        f"data.path={place}/cells",
        f"evaluate.knn.bank.path={place}/cells",
        f"evaluate.knn.query.path={place}/held-out-cells",
    ]
    plan = api.plan(TOP / "examples" / f"{name}.toml", overrides=sets)
    assert (plan.backbone.width, plan.backbone.depth, plan.backbone.heads, plan.backbone.patch_size) == (128, 6, 4, 4)
    assert [(view.name, view.size.plain) for view in plan.views] == [("global", 32), ("local", 16)]
    assert set(plan.spec.losses) == {"dino", "ibot", "koleo"} and plan.batch.images == 64


def runnable(text):
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] == "make":
            assert words[1] in MAKE_TARGETS, line
        elif words and words[:2] != ["pip", "install"]:
            yield words


@pytest.mark.slow
@pytest.mark.parametrize("text", blocks("sh"))
def test_every_command_runs(place, text, request):
    if re.search("(export|embed|eval|explain) runs/cells", text):
        request.getfixturevalue("with_run")
        shutil.rmtree(place / "exported")
    if "dinomx init slices/" in text:
        (place / "slices.toml").unlink()
    for words in runnable(text):
        assert words[0] in ("dinomx", "python"), words
        start = ["-c", "from dinomx_core.cli import main; main()"] if words[0] == "dinomx" else []
        short = []
        if words[1] in ("run", "sweep"):
            short = ["--set", "run.steps=2", "--set", "run.batch_size=8"]
        if short and "held-out" in Path(words[2]).read_text():
            short += ["--set", "evaluate.knn.k=[5]"]
        done = subprocess.run([sys.executable, *start, *words[1:], *short], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("text", blocks("python"))
def test_every_python_block_runs(place, text, request):
    if "exported/" in text:
        request.getfixturevalue("with_run")
    config = place / "examples" / "quickstart.toml"
    quick = config.read_text().replace("[run]", '[run]\nname = "quickstart"')
    (place / "examples").unlink()
    (place / "examples").mkdir()
    (place / "examples" / "quickstart.toml").write_text(
        re.sub(r"^steps = \d+", "steps = 2", quick, count=1, flags=re.MULTILINE)
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_config_reference_is_up_to_date():
    assert PAGE.read_text() == page(), "run `make docs`"


def test_the_plugin_reference_is_up_to_date():
    assert PAGE.with_name("plugin-api.md").read_text() == plugin_api.page(), "run `make docs`"


def test_the_plugin_reference_cannot_be_made_where_a_text_is_missing(monkeypatch):
    monkeypatch.setattr(hooks, "dinomx_losses", lambda: ())
    with pytest.raises(plugin_api.Missing, match="dinomx_losses has no docstring"):
        plugin_api.page()
    monkeypatch.undo()
    monkeypatch.setattr(contracts.Loss, "__doc__", None)
    with pytest.raises(plugin_api.Missing, match="Loss has no docstring"):
        plugin_api.page()
    monkeypatch.undo()
    monkeypatch.setattr(contracts.Strategy.merge, "__doc__", None)
    with pytest.raises(plugin_api.Missing, match="Strategy.merge has no docstring"):
        plugin_api.page()
    monkeypatch.undo()
    monkeypatch.setattr(components.Loss, "__doc__", "Built as `build(options, context)` -> `training.contracts.Wish`.")
    with pytest.raises(plugin_api.Missing, match="Loss is built as training.contracts.Wish, which is not there"):
        plugin_api.page()


def test_the_page_on_checks_is_up_to_date():
    from dinomx_core.testing.conform import all_checks

    assert CHECKING.read_text() == checks(), "run `make docs`"
    assert all(one.proves and one.remedy for one in all_checks())


def test_every_option_is_documented():
    for line in PAGE.read_text().splitlines():
        if line.startswith("| `") and line.count("|") == 5 and "| key |" not in line:
            key, doc = line.split("|")[1], line.split("|")[4]
            assert doc.strip(), key


def test_every_hook_and_contract_is_in_the_design_page():
    from dinomx_core.declare.hooks import HOOKS

    text = (TOP / "docs" / "design.md").read_text()
    assert [hook for hook in HOOKS.values() if f"`{hook}`" not in text] == []


def test_links_between_pages_lead_somewhere():
    for path in PAGES:
        for target in re.findall(r"\]\((?!http)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((TOP / "examples" / "mixes").glob("*.toml")), ids=lambda path: path.stem)
def test_every_mix_trains(path, tmp_path, monkeypatch):
    from dinomx_core import api

    assert f"examples/mixes/{path.name}" in "".join(page.read_text() for page in PAGES)
    sets = ["run.steps=2", "run.batch_size=8", f"run.out={tmp_path}", "optimizer.lr.warmup=1"]
    if "gram" in path.read_text():
        sets.append("loss.gram.weight=1.0" if "[[stage]]" not in path.read_text() else "loader.workers=0")
    if "runs/quickstart" in path.read_text():
        short = ["run.steps=2", "run.batch_size=8", f"run.out={tmp_path}"]
        teacher = api.run(TOP / "examples" / "quickstart.toml", overrides=short)
        sets.append(f"loss.distill-features.teacher={teacher.folder}")
    for plan in api.plans(path, overrides=sets):
        assert not [warning for warning in plan.warnings if "masked and unmasked" in warning]
    assert (api.run(path, overrides=sets).export / "config.json").exists()
