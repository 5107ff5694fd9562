"""The report as one HTML file that needs nothing else: pictures inside it, histograms as SVG, light or dark as the reader's screen is."""

import base64
import io
from collections.abc import Iterator, Sequence
from html import escape
from math import sqrt
from typing import Any

from PIL import Image

from dinomx_core.training.look.rows import Row
from dinomx_core.training.look.words import facts, figure, paste

CHARTS = 12  # channels whose histograms are drawn
WIDE, TALL = 320, 90  # of a histogram
STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fff; --ink: #1b1f24; --faint: #5f6b76; --line: #d9dee3; --bar: #3b76b5; --warn: #fff4d6; --edge: #d9a400;
}
@media (prefers-color-scheme: dark) { :root {
  --paper: #14171a; --ink: #e4e8ec; --faint: #98a3ad; --line: #333a41; --bar: #6aa5e0; --warn: #37300f; --edge: #b58a00;
} }
* { box-sizing: border-box; overflow-wrap: anywhere }
body { margin: 0 auto; max-width: 1360px; padding: 24px; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 22px; margin: 0 0 4px }
h2 { font-size: 17px; margin: 32px 0 8px }
p, figcaption { color: var(--faint); margin: 4px 0 }
ul { padding: 0; list-style: none }
li.warn { background: var(--warn); border-left: 4px solid var(--edge); padding: 8px 12px; margin: 6px 0 }
table { border-collapse: collapse; width: 100% }
td { border-top: 1px solid var(--line); padding: 5px 12px 5px 0; vertical-align: top }
td:first-child:not(:last-child) { color: var(--faint); white-space: nowrap; width: 1% }
pre { border: 1px solid var(--line); padding: 10px; white-space: pre-wrap }
.row { border-top: 1px solid var(--line); padding: 10px 0 16px }
.row > b { font-weight: 500 }
.strip, .crops { display: flex; gap: 12px; align-items: flex-start; margin-top: 6px }
.crops { flex-wrap: wrap; margin: 0 }
.whole { width: 300px; flex: none }
.whole img { max-height: 340px }
@media (max-width: 800px) { .strip { flex-wrap: wrap } }
figure { margin: 0 }
img { display: block; max-width: 100% }
.crop { image-rendering: pixelated; border: 3px solid; box-sizing: content-box }
figcaption { font-size: 12px }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 16px }
svg { width: 100%; height: auto; display: block }
svg rect { fill: var(--bar) }
svg text { fill: var(--faint); font: 11px system-ui, sans-serif }
svg line { stroke: var(--line) }
"""


def page(report: dict[str, Any], rows: Sequence[Row]) -> str:
    """The whole file."""
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">',
            f"<title>{escape(report['name'])}: data</title>\n<style>{STYLE}</style>",
            f"<h1>{escape(report['title'])}</h1>",
            *warned(report["warnings"]),
            *pictures(report, rows),
            *measurements(report),
            *charts("Numbers of the files, before the intensity", report["before"]),
            *charts("What the model gets, after the intensity and before mean and std", report["after"]),
            *left_out(report),
        ]
    )


def warned(texts: Sequence[str]) -> Iterator[str]:
    """Warnings, each in a box."""
    if texts:
        yield "<ul>" + "".join(f'<li class="warn">{escape(text)}</li>' for text in texts) + "</ul>"


def pictures(report: dict[str, Any], rows: Sequence[Row]) -> Iterator[str]:
    """Each image beside its crops."""
    if not rows:
        return
    yield f"<h2>What the model will see</h2><p>{escape(report['rule'])}</p>"
    for row in rows:
        yield f'<div class="row"><b>{escape(row.title)}</b><div class="strip">'
        whole = f'<img src="{embedded(row.whole)}" alt="whole image">'
        yield f'<figure class="whole">{whole}<figcaption>whole image</figcaption></figure><div class="crops">'
        for name, picture, colour in row.crops:
            side = 190 if name.startswith("global") else 110
            scale = side / max(picture.size)
            size = f"width:{round(picture.width * scale)}px;height:{round(picture.height * scale)}px"
            told = f"{name}, {picture.width} x {picture.height} px"
            yield (
                f'<figure><img class="crop" style="{size};border-color:{colour}" src="{embedded(picture)}" '
                f'alt="{escape(name)}"><figcaption>{escape(told)}</figcaption></figure>'
            )
        yield "</div></div></div>"


def embedded(picture: Image.Image) -> str:
    """A picture as the address that holds it."""
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def measurements(report: dict[str, Any]) -> Iterator[str]:
    """The table of facts, and what to paste."""
    yield "<h2>Measurements</h2><table>"
    for name, text in facts(report):
        yield f"<tr><td>{escape(name)}</td><td>{escape(text)}</td></tr>"
    yield "</table>"
    if report["suggested"]:
        yield f"<p>For [augmentation], after the intensity:</p><pre>{escape(chr(10).join(paste(report['suggested'])))}</pre>"
    if found := report.get("statistics"):
        yield f"<p>For [intensity] of z-score, in {escape(found['file'])}:</p><pre>{escape(chr(10).join(paste(found)))}</pre>"


def charts(title: str, channels: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A histogram a channel."""
    if not channels:
        return
    more = f" (the first {CHARTS} of {len(channels)} channels)" if len(channels) > CHARTS else ""
    yield f"<h2>{escape(title + more)}</h2><p>Heights are square roots of counts, so that rare values show.</p>"
    yield '<div class="charts">'
    yield from (chart(channel) for channel in channels[:CHARTS])
    yield "</div>"


def chart(channel: dict[str, Any]) -> str:
    """One histogram as SVG."""
    histogram = channel["histogram"]
    counts, most = histogram["counts"], max(histogram["counts"]) or 1
    step = WIDE / len(counts)
    bars = "".join(
        f'<rect x="{number * step:.1f}" y="{TALL - height:.1f}" width="{step - 0.6:.1f}" height="{height:.1f}"/>'
        for number, count in enumerate(counts)
        if (height := (TALL - 4) * sqrt(count / most))
    )
    ends = (
        f'<text x="0" y="{TALL + 14}">{figure(max(histogram["low"], channel["min"]))}</text>'
        f'<text x="{WIDE}" y="{TALL + 14}" text-anchor="end">{figure(min(histogram["high"], channel["max"]))}</text>'
    )
    axis = f'<line x1="0" x2="{WIDE}" y1="{TALL}" y2="{TALL}"/>'
    told = f"channel {channel['name']}: mean {figure(channel['mean'])}, std {figure(channel['std'])}"
    svg = f'<svg viewBox="0 0 {WIDE} {TALL + 18}" role="img" aria-label="{escape(told)}">{bars}{axis}{ends}</svg>'
    return f"<figure>{svg}<figcaption>{escape(told)}</figcaption></figure>"


def left_out(report: dict[str, Any]) -> Iterator[str]:
    """What cannot be read, and what is there twice."""
    unreadable, copies = report["unreadable"], report["duplicates"]
    for title, names, count in (
        ("Left out", unreadable["named"], unreadable["count"]),
        ("Copies, pixel for pixel", [" = ".join(names) for names in copies["named"]], copies["sets"]),
    ):
        if names:
            more = f" (the first {len(names)} of {count})" if count > len(names) else ""
            yield (
                f"<h2>{title + more}</h2><table>"
                + "".join(f"<tr><td>{escape(n)}</td></tr>" for n in names)
                + "</table>"
            )
