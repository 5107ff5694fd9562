"""What `dinomx explain` does, from Python. Importing it imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs

from dinomx_core import ConfigError
from dinomx_core.errors import Problem

CLUSTERS = 20  # at most: more colours than these cannot be told apart


@attrs.frozen
class Wanted:
    """What is asked for; see `explain`."""

    out: Path
    size: tuple[int, ...]
    block: int
    channels: tuple[int, ...]
    clusters: int
    patch: tuple[int, int] | None
    data: str
    limit: int
    hash_ids: bool
    overwrite: bool
    progress: Callable[[int, int], None]


def explain(
    source: str | Path,
    images: str | Path | Iterable[str | Path],
    *,
    out: str | Path | None = None,
    size: int | tuple[int, int] | None = None,
    block: int = -1,
    channels: tuple[int, ...] = (),
    clusters: int = 6,
    patch: tuple[int, int] | None = None,
    map: str | Path = "",
    limit: int = 12,
    hash_ids: bool = False,
    overwrite: bool = False,
    plugins: Iterable[ModuleType] = (),
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Draw what a model sees in images: a folder of PNGs with a page, index.html. Returns what `out`/explain.json holds.

    source: a run, checkpoint or export, a config (its backbone as it starts), a folder of Hugging Face weights, or a checkpoint of a
    reference code. images: files, folders and manifests. out: default explain/NAME. size: pixels of the shorter side, or height and width;
    None: that of evaluations. block: whose attention, from 1; -1: the last. channels: up to three that are shown. patch: row and column,
    from 0, of the one whose similarity is drawn; None: the middle. map: config, folder or manifest whose images are laid out by their
    features. limit: images drawn, evenly spread. hash_ids: no names of files and classes, which holds where [report] of the run or the
    config says so, too. overwrite: write into a folder that holds other things, too. Raises ConfigError and DataError.
    """
    from dinomx_interpret.folder import check_model, hides_names, name_of
    from dinomx_interpret.job import run

    sides = () if size is None else (size,) if isinstance(size, int) else tuple(size)
    wanted = Wanted(
        Path(out) if out is not None else Path("explain") / name_of(Path(source)), sides, block, tuple(channels), clusters, patch,
        str(map), limit, hash_ids, overwrite, progress or (lambda done, total: None),
    )  # fmt: skip
    check(wanted)
    plugins = list(plugins)
    check_model(Path(source), plugins)
    wanted = attrs.evolve(wanted, hash_ids=hash_ids or hides_names(Path(source), plugins))
    named = [images] if isinstance(images, (str, Path)) else list(images)
    return run(Path(source), [Path(image) for image in named], wanted, plugins)


def check(wanted: Wanted) -> None:
    """Raise ConfigError, with every problem, for what makes no sense whatever the model is."""
    problems = []
    if wanted.size and min(wanted.size) < 1:
        problems.append(Problem(f"sides have one pixel or more, got {'x'.join(map(str, wanted.size))}", "--size"))
    if wanted.block < 1 and wanted.block != -1:
        problems.append(Problem(f"blocks are counted from 1, got {wanted.block}", "--block"))
    if not 2 <= wanted.clusters <= CLUSTERS:
        problems.append(Problem(f"expected 2 to {CLUSTERS} clusters, got {wanted.clusters}", "--clusters"))
    if wanted.patch and min(wanted.patch) < 0:
        problems.append(
            Problem(f"rows and columns are counted from 0, got {wanted.patch[0]},{wanted.patch[1]}", "--patch")
        )
    if wanted.limit < 1:
        problems.append(Problem(f"expected one image or more, got {wanted.limit}", "--limit"))
    if len(wanted.channels) > 3 or any(channel < 0 for channel in wanted.channels):
        told = ",".join(map(str, wanted.channels))
        problems.append(Problem(f"expected one to three numbers such as 0,3,5, got {told}", "--channels"))
    if problems:
        raise ConfigError(problems)
