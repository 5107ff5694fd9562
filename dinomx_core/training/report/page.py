"""The report as one HTML file that needs nothing else, light or dark as the reader's screen is. No torch."""

import base64
import json
from collections.abc import Iterator, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from dinomx_core.training.report.chart import FALLS_OVER, LEFT, RIGHT, WIDE, chart
from dinomx_core.training.report.curves import Curve
from dinomx_core.training.report.story import SCHEDULES, Story

SHOWN = 7  # looks beside each other: the first, the newest, and some in between
GLOBAL, LOCAL = 150, 90  # pixels of a crop's longer side


def page(story: Story, state: str, reason: str, drawn: dict[str, Any]) -> str:
    """The whole file. drawn: the index of the pictures; {} where no images are to be seen."""
    name = f"{story.plan.spec.run.name}, stage {story.plan.stage}" if story.plan.stage else story.plan.spec.run.name
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">',
            f"<title>{escape(name)}: report</title>\n<style>{part('page.css')}</style>",
            f"<h1>{escape(name)}</h1><p>{escape(about(story))}</p>",
            *tiles(story, state, reason),
            *verdicts(story),
            *evaluations(story),
            *figures(story),
            *pictures(story, drawn),
            *papers(story),
            f'<script type="application/json" id="curves">{data(story)}</script>',
            f"<script>{part('page.js')}</script>\n",
        ]
    )


def part(name: str) -> str:
    """A file beside this one."""
    return (resources.files("dinomx_core.training.report") / name).read_text("utf-8")


def about(story: Story) -> str:
    """What is trained, in a line."""
    spec = story.plan.spec
    losses = ", ".join(dict.fromkeys(chosen.component.name for chosen in spec.losses.values()))
    return f"{losses} on {spec.backbone.component.name}, {story.plan.data.count:,} images of {spec.data.component.name}"


def tiles(story: Story, state: str, reason: str) -> Iterator[str]:
    """What is seen first."""
    yield '<div class="tiles">'
    for tile in story.tiles(state, reason):
        yield (
            f'<div class="tile {tile.tone}"><span>{escape(tile.name)}</span><b>{escape(tile.figure)}</b>'
            f"<span>{escape(tile.told)}</span></div>"
        )
    yield "</div>"


def verdicts(story: Story) -> Iterator[str]:
    """What health has said, by the numbers that mark it in the charts."""
    if story.verdicts:
        yield '<ol class="verdicts">'
        for which, row in enumerate(story.verdicts, 1):
            told = f"{row['message']}. {row['remedy']}"
            yield f"<li><b>{which} · step {row['step']:,} · {escape(row['name'])}</b>: {escape(told)}.</li>"
        yield "</ol>"


def evaluations(story: Story) -> Iterator[str]:
    """Every figure of every evaluation, k-NN first; parts of figures folded."""
    whole, parts = story.evaluated()
    if whole:
        yield "<h2>Evaluations</h2><p>Of the teacher. Each dot is an evaluation.</p>"
        yield from charts(story, "evaluations", whole, dots=True)
    if parts:
        yield f"<details><summary>{len(parts)} parts of figures</summary>"
        yield from charts(story, "evaluations", parts, dots=True)
        yield "</details>"


def figures(story: Story) -> Iterator[str]:
    """Figures of the steps, in their groups."""
    for title, told, found in story.groups():
        if found:
            yield f"<h2>{title}</h2>" + (f"<p>{escape(told)}</p>" if told else "")
            yield from charts(story, "metrics", found, exact=title == SCHEDULES)


def charts(story: Story, kind: str, found: dict[str, Curve], dots: bool = False, exact: bool = False) -> Iterator[str]:
    """A chart a figure."""
    marked = [(row["step"], which) for which, row in enumerate(story.verdicts, 1)]
    yield '<div class="charts">'
    for name, curve in found.items():
        log = name.rpartition("/")[2] in FALLS_OVER or name.startswith("loss")
        yield chart(kind, name, curve, story.plan.steps, marked, dots=dots, exact=exact, log=log)
    yield "</div>"


def pictures(story: Story, drawn: dict[str, Any]) -> Iterator[str]:
    """Crops, and maps of fixed images over time."""
    folder = story.folder / "pictures"
    if drawn.get("looks"):
        shown = spread(drawn["looks"])
        what = "Attention of the last block, mean of the heads, above the" if drawn["attention"] else "The"
        without = "" if drawn["attention"] else " Attention is left out: this backbone has none to look at."
        yield (
            f"<h2>What it sees</h2><p>{what} first three principal components of the patches of all images at a step as red, green and "
            f"blue, of the teacher. Each map of attention has its own scale.{without}</p>"
        )
        for number, image in enumerate(drawn["images"], 1):
            yield f'<div class="row"><b>{escape(image["title"])}</b><div class="looks">'
            yield f"<figure>{picture(folder / image['file'], 'image')}<figcaption>as it is shown</figcaption></figure>"
            for step in shown:
                names = ["attention", "pca"] if drawn["attention"] else ["pca"]
                maps = "".join(
                    picture(folder / f"{step}-{number}-{name}.png", f"{name} at step {step}", 'class="map"')
                    for name in names
                )
                yield f"<figure>{maps}<figcaption>step {step:,}</figcaption></figure>"
            yield "</div></div>"
    if drawn.get("crops"):
        yield "<h2>Crops</h2><p>As training draws them in its first pass; frames have the colours of their boxes.</p>"
        for row in drawn["crops"]:
            yield f'<div class="row"><b>{escape(row["title"])}</b><div class="strip">'
            yield f'<figure class="whole">{picture(folder / row["whole"], "whole image")}<figcaption>whole image</figcaption></figure>'
            yield from (crop_of(folder, crop) for crop in row["crops"])
            yield "</div></div>"


def crop_of(folder: Path, crop: dict[str, Any]) -> str:
    """A crop in its own proportions, in the frame of its box."""
    width, height = crop["size"]
    scale = (GLOBAL if crop["name"].startswith("global") else LOCAL) / max(width, height)
    size = f"width:{round(width * scale)}px;height:{round(height * scale)}px;border-color:{crop['colour']}"
    told = f"{crop['name']}<br>{width} x {height} px"
    shown = picture(folder / crop["file"], crop["name"], f'class="crop" style="{size}"')
    return f"<figure>{shown}<figcaption>{told}</figcaption></figure>"


def spread(looks: Sequence[int]) -> list[int]:
    """The first, the newest, and some evenly in between."""
    last = len(looks) - 1
    return [looks[n] for n in sorted({round(k * last / (SHOWN - 1)) for k in range(SHOWN)})]


def picture(file: Path, told: str, how: str = "") -> str:
    """A picture inside the page; nothing where it is not there."""
    if not file.exists():
        return ""
    inside = base64.b64encode(file.read_bytes()).decode()
    kind = "jpeg" if file.suffix == ".jpg" else "png"
    return f'<img {how} src="data:image/{kind};base64,{inside}" alt="{escape(told)}">'


def papers(story: Story) -> Iterator[str]:
    """What is needed to do it again, and where things are."""
    yield f"<h2>To reproduce</h2><pre>{escape(story.command())}</pre>"
    yield from table(story.files())
    yield "<h2>Plan</h2>"
    yield from table(story.facts())
    yield f"<h2>Config</h2><pre>{escape(story.config().rstrip())}</pre>"


def table(rows: Iterator[tuple[str, str]]) -> Iterator[str]:
    """Names and texts."""
    yield "<table>"
    yield from (f"<tr><td>{escape(name)}</td><td>{escape(text)}</td></tr>" for name, text in rows)
    yield "</table>"


def data(story: Story) -> str:
    """The points of all curves for the script; `<` is written so that no name can end the element."""
    every = {
        f"{kind}/{name}": points(curve)
        for kind, found in (("metrics", story.metrics), ("evaluations", story.evaluations))
        for name, curve in found.figures.items()
    }
    told = {"steps": max(1, story.plan.steps), "wide": WIDE, "left": LEFT, "right": RIGHT, "figures": every}
    return json.dumps(told, separators=(",", ":")).replace("<", "\\u003c")


def points(curve: Curve) -> list[list[float]]:
    """Steps and means of a curve."""
    means = list(curve.means())
    return [[step for step, _ in means], [float(f"{value:.6g}") for _, value in means]]
