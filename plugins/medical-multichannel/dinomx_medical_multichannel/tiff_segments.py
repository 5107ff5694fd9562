"""Regions of a TIFF's page from the tiles or strips that they touch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

WHOLE = 0.5  # share of a page from which on all of it is decoded, which several threads do


def cut_page(page: Any, place: tuple[Any, ...]) -> np.ndarray:
    """What stands at a place of a page, an index or slice for each of its axes. The page's file is open."""
    key = page.keyframe
    spans = {axis: range(size)[at] for axis, size, at in zip(key.axes, key.shape, place) if isinstance(at, slice)}
    wanted = len(spans.get("Y", ())) * len(spans.get("X", ()))
    if not {"Y", "X"} <= set(spans) or wanted > WHOLE * key.imagelength * key.imagewidth or key.imagedepth > 1:
        return page.asarray()[place]
    return gathered(page, key.axes, spans)


def gathered(page: Any, axes: str, spans: dict[str, range]) -> np.ndarray:
    """The same for a part that is small."""
    key = page.keyframe
    sides = {"Y": spans["Y"], "X": spans["X"]}
    samples = {"S": key.shape[axes.index("S")]} if "S" in axes else {}
    separate = axes.startswith("S")
    count = samples.get("S", 1)
    out = np.full((count, len(sides["Y"]), len(sides["X"])), key.nodata, key.dtype)
    more = (
        {"jpegtables": page.jpegtables, "jpegheader": key.jpegheader}
        if int(key.compression) in (6, 7, 34892, 33007)
        else {}
    )
    for number in touched(key, sides, count if separate else 1):
        offset, size = page.dataoffsets[number], page.databytecounts[number]
        _, (sample, _, top, left, _), (_, height, width, _) = key.decode(None, number, **more)
        rows, columns = over(sides["Y"], top, height), over(sides["X"], left, width)
        if not rows or not columns or not size:
            continue
        page.parent.filehandle.seek(offset)
        segment = key.decode(page.parent.filehandle.read(size), number, **more)[0]
        if segment is None:
            continue
        part = segment[0, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        target = out[:, rows.start - sides["Y"].start :, columns.start - sides["X"].start :]
        target = target[sample : sample + 1] if separate else target
        target[:, : len(rows), : len(columns)] = np.moveaxis(part, -1, 0)
    return out if separate else np.moveaxis(out, 0, -1) if samples else out[0]


def touched(key: Any, sides: dict[str, range], planes: int) -> Iterator[int]:
    """Numbers of a page's tiles or strips that lie under a region, in each of so many planes."""
    height, width = (key.tilelength, key.tilewidth) if key.is_tiled else (key.rowsperstrip, key.imagewidth)
    down, across = -(-key.imagelength // height), -(-key.imagewidth // width)
    rows = range(sides["Y"].start // height, -(-sides["Y"].stop // height))
    columns = range(sides["X"].start // width, -(-sides["X"].stop // width))
    for plane, row, column in product(range(planes), rows, columns):
        yield (plane * down + row) * across + column


def over(span: range, start: int, length: int) -> range:
    """What a span has in common with a stretch."""
    return range(max(span.start, start), min(span.stop, start + length))
