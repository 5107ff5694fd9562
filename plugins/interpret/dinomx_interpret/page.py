"""Everything as one HTML file that needs no network: maps over their images, and patches that can be clicked."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from html import escape
from importlib import resources
from typing import TYPE_CHECKING, Any

from PIL import Image

from dinomx_core.training.colours import colour_table
from dinomx_core.training.look.page import embedded
from dinomx_interpret import features
from dinomx_interpret.panels import HEAT, NEAR, Panel, Shared

if TYPE_CHECKING:
    from dinomx_interpret.job import Explained
    from dinomx_interpret.mapping import Mapped


def page(report: dict[str, Any], drawn: Sequence[Explained], shared: Shared, mapped: Mapped | None) -> str:
    """The whole file."""
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">',
            f"<title>{escape(report['name'])}: what it sees</title>\n<style>{part('page.css')}</style>",
            f"<h1>{escape(report['name'])}: what it sees</h1>",
            *head(report),
            *tools(report),
            *stages(drawn),
            "<h2>Maps</h2>",
            *reading(report),
            *(line for number, image in enumerate(drawn) for line in maps(number, image)),
            *dataset(mapped),
            f'<script type="application/json" id="features">{data(drawn, shared)}</script>',
            f"<script>{part('page.js')}</script>",
        ]
    )


def part(name: str) -> str:
    """A file beside this one."""
    return (resources.files("dinomx_interpret") / name).read_text("utf-8")


def head(report: dict[str, Any]) -> Iterator[str]:
    """What the model is, and what is not here."""
    count = len(report["images"])
    facts = [f"{report['blocks']} blocks", f"width {report['width']}", f"patches of {report['patch_size']} px"]
    facts += [f"{report['heads']} heads"] if report["heads"] else []
    facts += [f"{report['registers']} registers"] if report["registers"] else []
    facts += [f"{count} image{'' if count == 1 else 's'}"] + ([report["shown"]] if report["shown"] else [])
    yield f"<p>{escape(' · '.join(facts))}</p>"
    yield from (f'<p class="note">{escape(text)}</p>' for text in (*report["notes"], *report["warnings"]))


def tools(report: dict[str, Any]) -> Iterator[str]:
    """How similarity is read, and what can be set."""
    error = report["similarity_error"]
    exact = "to 0.001" if error < 0.001 else f"to {error:.2g}"
    yield "<h2>Similarity</h2>"
    yield (
        "<p>Click a patch, or move to an image with Tab and use the arrow keys: its cosine similarity to every patch of every image "
        f"here. Worked out in this page from {report['similarity_features']} features a patch, which is exact {exact}.</p>"
    )
    yield (
        f'<div class="tools"><output id="chosen" aria-live="polite"></output>{scale(NEAR, "<span id=low></span>", "1.00")}'
        '<label>maps cover the image <input id="cover" type="range" min="0" max="100" value="80"></label></div>'
    )


def scale(name: str, low: str, high: str) -> str:
    """A strip of colours between two texts."""
    stops = ",".join("#{:02x}{:02x}{:02x}".format(*colour_table(name)[n]) for n in range(0, 256, 17))
    return f'<span class="scale">{low}<i style="background:linear-gradient(90deg,{stops})"></i>{high}</span>'


def stages(drawn: Sequence[Explained]) -> Iterator[str]:
    """The images that can be clicked."""
    yield '<div class="grid wide">'
    for number, image in enumerate(drawn):
        height, width = image.seen.grid
        yield (
            f'<figure><div class="stack live" id="stage-{number}" data-under="image-{number}" tabindex="0" role="application" '
            f'aria-label="{escape(image.name)}" style="aspect-ratio:{width}/{height}"><canvas class="over" width="{width}" '
            f'height="{height}"></canvas><div class="patch"></div></div><figcaption>{escape(image.name)}</figcaption></figure>'
        )
    yield "</div>"


def reading(report: dict[str, Any]) -> Iterator[str]:
    """How the maps are read."""
    if report["heads"]:
        yield (
            f"<p>Attention of block {report['block']}, of the {report['query']} to the patches; class token and registers are no "
            f"part of the maps. Each map has its own scale: {scale(HEAT, 'none', 'the most of this map')}, or, where a few patches have "
            "far more than all others, as much as is said.</p>"
        )
    yield (
        "<p>Principal components: what is similar has similar colours, in all images; grey is what the first component over all "
        "patches puts apart, on the side that lies more along the images' edges. Clusters: k-means of the patches' directions; a "
        "colour is the same cluster in all images.</p>"
    )


def maps(number: int, image: Explained) -> Iterator[str]:
    """An image and all its maps."""
    height, width = image.seen.grid
    yield f'<h3>{escape(image.name)}</h3><div class="grid">'
    yield (
        f'<figure><div class="stack plain" style="aspect-ratio:{width}/{height}"><img id="image-{number}" src="{embedded(image.picture)}" '
        f'alt="{escape(image.name)}"></div><figcaption><b>The image</b>{image.picture.width} x {image.picture.height} px as the model saw '
        f"it, {height} rows and {width} columns of patches</figcaption></figure>"
    )
    for panel in image.panels[:-1]:  # the similarity is above
        yield figure(number, image, panel)
    yield "</div>"


def figure(number: int, image: Explained, panel: Panel) -> str:
    """A map over its image."""
    height, width = image.seen.grid
    legend = "".join(
        f'<i class="swatch" style="background:{colour}"></i>{escape(text)} ' for text, colour in panel.legend
    )
    clipped = panel.rule.partition("; ")[2] if panel.clipped else ""
    below = escape("; ".join(text for text in (panel.told, clipped) if text))
    told = panel.told or ", ".join(text for text, _ in panel.legend)
    return (
        f'<figure><div class="stack" data-under="image-{number}" style="aspect-ratio:{width}/{height}"><img class="over" '
        f'src="{embedded(Image.fromarray(panel.colours))}" alt="{escape(f"{panel.title} of {image.name}: {told}")}"></div>'
        f"<figcaption><b>{escape(panel.title)}</b>{legend}{below}</figcaption></figure>"
    )


def dataset(mapped: Mapped | None) -> Iterator[str]:
    """The map of a data set, as the reader's screen is."""
    if mapped is None:
        return
    light, dark = (f"data:image/png;base64,{base64.b64encode(png).decode()}" for png in (mapped.light, mapped.dark))
    yield f"<h2>The data set</h2><p>{escape(mapped.told)}. Frames have the colours of their classes.</p>"
    yield (
        f'<picture class="map"><source srcset="{dark}" media="(prefers-color-scheme: dark)">'
        f'<img src="{light}" alt="{escape(mapped.told)}"></picture>'
    )


def data(drawn: Sequence[Explained], shared: Shared) -> str:
    """What the script works with; `<` is written so that no name can end the element."""
    codes = features.split(shared.codes.numbers.astype("<i2"), shared.grids)
    told = {
        "table": base64.b64encode(colour_table(NEAR).tobytes()).decode(),
        "scale": [float(f"{step:.6g}") for step in shared.codes.scale],
        "images": [
            {
                "name": image.name, "rows": image.seen.grid[0], "columns": image.seen.grid[1], "start": image.patch,
                "codes": base64.b64encode(numbers.tobytes()).decode(),
            }
            for image, numbers in zip(drawn, codes)
        ],
    }  # fmt: skip
    return json.dumps(told).replace("<", "\\u003c")
