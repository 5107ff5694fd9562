"""What the commands around data do, from Python. Importing it imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dinomx_core.declare.discover import discover

if TYPE_CHECKING:
    from dinomx_core.planning.plan import Env


def measure(
    config: str | Path | dict[str, Any],
    *,
    overrides: Iterable[str] = (),
    out: str | Path | None = None,
    images: int = 2000,
    sheet: int = 8,
    channels: tuple[int, ...] = (),
    statistics: str | Path | None = None,
    pictures: bool = True,
    hash_ids: bool = False,
    seed: int | None = None,
    plugins: Iterable[ModuleType] = (),
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Measure a config's images and draw what the model will see of them. Returns what was found, which `out`/data.json keeps.

    out: folder for data.json, index.html and sheet.png (default: data-report/NAME). images: how many are measured, evenly spread; 0: all.
    sheet: images on the contact sheet; channels: which it shows. statistics: JSON file to write for the intensity `z-score`, of all images.
    pictures: False: numbers only. hash_ids: no names of files, groups and classes; both hold where [report] says so, too. seed: instead of
    `run.seed`. A config that `plan` refuses for other reasons than its data is measured, too, as far as it goes. Raises ConfigError and
    DataError.
    """
    from dinomx_core.training.look.look import Wanted, measure_and_draw
    from dinomx_core.training.look.subject import subject_of

    wanted = Wanted(
        Path(out) if out is not None else None, images, sheet, channels, Path(statistics) if statistics is not None else None, pictures,
        hash_ids, progress or (lambda done, total: None),
    )  # fmt: skip
    return measure_and_draw(subject_of(config, list(overrides), seed, plugins), wanted)


def pack(
    config: str | Path | dict[str, Any],
    out: str | Path,
    *,
    overrides: Iterable[str] = (),
    shard_size: int = 1000,
    plugins: Iterable[ModuleType] = (),
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write the images of a config's [data] into a folder of tars, which the data set `shards` reads. Returns what `shards.json` holds.

    A call that was interrupted goes on where it was. Raises ConfigError and DataError.
    """
    from dinomx_core.builtin.pack import nobody
    from dinomx_core.builtin.pack import pack as written
    from dinomx_core.training.construct import construct
    from dinomx_core.training.look.subject import subject_of

    data = subject_of(config, list(overrides), None, plugins).spec.data
    return written(construct(data), data.component.inspect(data.options), Path(out), shard_size, progress or nobody)


def init(
    path: str | Path,
    *,
    out: str | Path | None = None,
    steps: int = 0,
    domain: str = "",
    overwrite: bool = False,
    plugins: Iterable[ModuleType] = (),
    env: Env | None = None,
) -> dict[str, Any]:
    """Write a config for images after a look at them and at this machine, and hand back what was seen: {"file", "seen", "notes"}.

    path: a folder, manifest, tar, .npz or data set on disk. out: the file (default: NAME.toml). steps: 0: by the number of images.
    domain: which augmentation; "": a guess. Raises DataError where there is nothing to train on, ConfigError for a file that is there.
    """
    from dinomx_core.builtin.propose.propose import Asked, propose

    asked = Asked(str(path), Path(out) if out is not None else None, steps, domain, overwrite)
    return propose(asked, discover(plugins), env, list(plugins))
