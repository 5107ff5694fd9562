"""Data sets of files: what the images below a folder, and the rows of a manifest, are. No torch."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from dinomx_core.builtin.arrange import arrange
from dinomx_core.builtin.labels import kind_of, labels_of, unlabelled
from dinomx_core.builtin.listing import list_images
from dinomx_core.builtin.manifest import Manifest, check_files, named, plain, read_manifest
from dinomx_core.builtin.picture_options import ImageFolder, ManifestFile, Pictured
from dinomx_core.builtin.pictures import SHOWN, Pictures, as_text, look, numbered, place, take_part
from dinomx_core.declare.facts import DataInfo
from dinomx_core.errors import DataError
from dinomx_core.training.construct import construct

RGB = 3
MOST_PIXELS = 2**31 - 1  # of a side


def info_of(pictures: Pictures, options: Pictured) -> DataInfo:
    """What pictures hold, some of them opened. Raises DataError where they do not fit the options."""
    seen = look(pictures, construct(options.reader))
    return DataInfo(
        len(pictures), channels_of(seen.channels, options), pictures.classes, pictures.notes, pictures.digest,
        unreadable=pictures.faults, sampled=seen.sampled, names=pictures.names, regions=pictures.masks is not None,
        label_kind=kind_of(pictures.labels),
    )  # fmt: skip


def channels_of(found: dict[int, str], options: Pictured) -> int:
    """Channels of images of a data set, some of which have so many (each with an example). Raises DataError where they do not mix."""
    wanted = options.channels
    if not wanted:
        if set(found) <= {1, RGB} and (len(found) > 1 or options.reader.component.colour):
            return RGB
        if len(found) == 1:
            return next(iter(found))
        some = ", ".join(f"{count} ({name})" for count, name in sorted(found.items()))
        raise DataError(
            f"images of different numbers of channels: {some}; keep them apart (see the data set `mix`)", "path"
        )
    for count, name in found.items():
        if count != wanted and not (count in (1, 3) and wanted == 1) and count != 1:
            raise DataError(f"{wanted}, but {name} has {count}; set 0, or {count}", "channels")
    return wanted


def find_folder(options: ImageFolder) -> Pictures:
    """The images below the folder. Raises DataError."""
    component = options.reader.component
    listing = list_images(options.path, component.suffixes, component.folders)
    classes = () if options.labels == "none" else listing.classes
    labels = np.array(listing.labels, np.int32) if classes else np.full(len(listing.files), -1, np.int32)
    notes = tuple(note for note in listing.notes if classes == listing.classes or "classes" not in note)
    columns = stacked(listing.files, options.stack) if options.stack else [range(len(listing.files))]
    files = tuple(listing.files[number] for column in columns for number in column)
    order = [number for column in columns for number in column]
    paths = [listing.root / file for file in files]
    rows = len(columns[0])
    arranged = arrange(options, [paths[n * rows : (n + 1) * rows] for n in range(len(columns))])
    own = arranged.planes[:, options.neighbours, 0]
    groups = [arranged.groups[i] if arranged.groups else "" for i in range(len(own))]
    if options.group:
        groups = [group_in(files[number], options.group) for number in own]
    group_of, group_names = numbered(groups)
    return take_part(
        Pictures(
            listing.root, files, arranged.planes, labels[np.array(order, np.int64)[own]], classes, group_of, group_names,
            None, names_of(options.stack), arranged.faults, (*notes, *arranged.notes), options.neighbours,
        ),
        options,
    )  # fmt: skip


def names_of(patterns: Sequence[str]) -> tuple[str, ...]:
    """Names of channels: what tells them apart, without the marks around it."""
    return tuple(pattern.strip("_-. ") or pattern for pattern in patterns)


def group_in(file: str, pattern: str) -> str:
    """What of a path a pattern matches. Raises DataError where it matches nothing."""
    try:
        match = re.search(pattern, file)
    except re.error as error:
        raise DataError(f'"{pattern}" is no regular expression: {error}', "group") from None
    if match is None:
        raise DataError(f'"{pattern}" is nowhere in {as_text(file)}; every image needs a group', "group")
    return match[(match.re.groups and 1) or 0]


def stacked(files: Sequence[str], patterns: Sequence[str]) -> list[list[int]]:
    """Numbers of the files of each channel, image by image. Raises DataError for files with no channel or several, and images that lack
    one."""
    found: dict[str, dict[int, int]] = {}
    for number, file in enumerate(files):
        folder, name = os.path.split(file)
        which = [n for n, pattern in enumerate(patterns) if pattern in name]
        which = [
            n for n in which if not any(m != n and patterns[n] in patterns[m] for m in which)
        ]  # _t1ce has _t1, too
        if len(which) != 1:
            told = "none" if not which else "several"
            raise DataError(
                f"{as_text(file)} has {told} of {named(patterns)} in its name; each file needs one", "stack"
            )
        rest = os.path.join(folder, name.replace(patterns[which[0]], "", 1))
        if (twin := found.setdefault(rest, {}).setdefault(which[0], number)) != number:
            raise DataError(f"{as_text(files[twin])} and {as_text(file)} are the same channel of one image", "stack")
    lacking = [(channels, rest) for rest, channels in found.items() if len(channels) < len(patterns)]
    if lacking:
        some = "; ".join(
            f"{as_text(files[next(iter(channels.values()))])} has no "
            + ", ".join(f'"{p}"' for n, p in enumerate(patterns) if n not in channels)
            for channels, _ in lacking[:SHOWN]
        )
        raise DataError(
            f"{len(lacking)} of {len(found)} images lack a channel's file: {some}; add these files, or take the others away",
            "stack",
        )
    return [[channels[n] for channels in found.values()] for n in range(len(patterns))]


def find_rows(options: ManifestFile) -> Pictures:
    """The images of the manifest. Raises DataError, which names lines."""
    if not options.columns:
        raise DataError("names no column of paths", "columns")
    file = options.path if "://" in options.path else str(Path(options.path).expanduser().absolute())
    try:
        manifest = read_manifest(place(Path(), file), options.columns[0])
    except DataError as error:
        raise DataError(str(error), "columns" if error.key == "path_column" else error.key) from None
    root = Path(os.path.dirname(file))
    columns = [manifest.paths, *(texts(manifest, name, "columns") for name in options.columns[1:])]
    given = [str(value or "") for value in column_of(manifest, options.mask, "mask")] if options.mask else []
    if given:  # the image stands in for a mask that is not there
        columns.append([mask or path for mask, path in zip(given, manifest.paths)])
    base = os.path.dirname(file) + "/" if "://" in file else ""
    files = tuple(base + path if base and "://" not in path else path for column in columns for path in column)
    if not base:
        check_files(attrs.evolve(manifest, paths=files, numbers=list(manifest.numbers) * len(columns)))
    rows = len(manifest.paths)
    simple = options.reader.component.index is None
    paths = [root / path if simple else place(root, path) for path in files]
    arranged = arrange(options, [paths[n * rows : (n + 1) * rows] for n in range(len(columns))])
    row: Any = arranged.planes[:, options.neighbours, 0] % rows
    planes, groups = arranged.planes, list(arranged.groups)
    width = len(options.columns) * (2 * options.neighbours + 1)
    masks = planes[:, width + options.neighbours] if options.mask else None
    if masks is not None:
        masks = np.where(np.array([not mask for mask in given])[row][:, None], -1, masks)
    faults = arranged.faults
    planes = planes[:, :width]
    if options.frame:
        frames = numbers_in(manifest, options.frame, "frame")
        keep = arranged.planes[:, options.neighbours, 1] == frames[row]
        if not keep.any():
            raise DataError(
                f'{manifest.file}: column "{options.frame}" names no frame that its row\'s file has', "frame"
            )
        lost = sorted(set(row.tolist()) - set(row[keep].tolist()))
        faults += tuple(
            f"{manifest.where([r])}: {files[r]} has no frame {frames[r]:g}, or it is empty and skipped" for r in lost
        )
        planes, row, masks = planes[keep], row[keep], None if masks is None else masks[keep]
        groups = [group for group, kept in zip(groups, keep) if kept]
    classes, labels = labels_in(manifest, options)
    if options.group:
        column = texts(manifest, options.group, "group")
        groups = [column[r] for r in row]
    group_of, group_names = numbered(groups or [""] * len(row))
    regions = regions_of(manifest, options)
    names = tuple(options.columns) if len(options.columns) > 1 else ()
    return take_part(
        Pictures(
            root, files, planes, labels[row], classes, group_of, group_names, None if regions is None else regions[row], names,
            faults, (*arranged.notes, *unlabelled(labels[row])), options.neighbours, masks, bool(options.centre),
        ),
        options,
    )  # fmt: skip


def labels_in(manifest: Manifest, options: ManifestFile) -> tuple[tuple[str, ...], np.ndarray]:
    """Classes, and each row's label (see `labels`). Raises DataError."""
    if not options.label:
        return (), np.full(len(manifest.paths), -1, np.int32)
    if options.label_kind == "class":
        label_of, classes = numbered(texts(manifest, options.label, "label"))
        return classes, label_of
    classes, labels, wrong = labels_of(column_of(manifest, options.label, "label"), options)
    if wrong:
        what = "no number" if options.label_kind == "number" else "no text"
        raise DataError(f'{manifest.file}: column "{options.label}" holds {what} in {manifest.where(wrong)}', "label")
    if not classes and options.label_kind == "classes":
        raise DataError(f'{manifest.file}: column "{options.label}" names no class in any {manifest.unit}', "label")
    return classes, labels


def column_of(manifest: Manifest, name: str, key: str) -> list[Any]:
    """A column's values. Raises DataError where there is no such column."""
    if name not in manifest.columns:
        raise DataError(f'{manifest.file}: has no column "{name}"; its columns are {named(manifest.columns)}', key)
    return plain(manifest.columns[name])


def texts(manifest: Manifest, name: str, key: str) -> list[str]:
    """A column of texts or whole numbers, none of them missing, as texts. Raises DataError."""
    return [
        str(value) for value in _checked(manifest, name, key, lambda value: isinstance(value, (str, int)), "no text")
    ]


def numbers_in(manifest: Manifest, name: str, key: str) -> Any:
    """A column of numbers, float64. Raises DataError."""

    def fits(value: Any) -> bool:
        try:
            return bool(np.isfinite(float(value)))
        except (TypeError, ValueError):
            return False

    return np.array([float(value) for value in _checked(manifest, name, key, fits, "no number")])


def pixels_in(manifest: Manifest, name: str, key: str) -> Any:
    """A column of whole pixels, int64; others are rounded. Raises DataError for numbers that no image has pixels for."""
    found = numbers_in(manifest, name, key).round()
    if (wrong := np.flatnonzero(np.abs(found) > MOST_PIXELS)).size:
        rows = manifest.where(wrong.tolist())
        raise DataError(
            f'{manifest.file}: column "{name}" holds {found[wrong[0]]:g} in {rows}, more than pixels count', key
        )
    return found.astype(np.int64)


def _checked(manifest: Manifest, name: str, key: str, fits: Callable[[Any], bool], what: str) -> list[Any]:
    values = column_of(manifest, name, key)
    if wrong := [row for row, value in enumerate(values) if value is None or not fits(value)]:
        raise DataError(f'{manifest.file}: column "{name}" holds {what} in {manifest.where(wrong)}', key)
    return values


def regions_of(manifest: Manifest, options: ManifestFile) -> np.ndarray | None:
    """Top, left, height and width of each row's region (rows, 4); None: whole images. Raises DataError."""
    if options.box and options.centre:
        raise DataError("give boxes or centres, not both", "box")
    if options.box:
        if len(options.box) != 4:
            raise DataError(f"names the columns of left, top, width and height, got {named(options.box)}", "box")
        found = [pixels_in(manifest, name, "box").astype(np.int32) for name in options.box]
        left, top, width, height = found
        if (wrong := np.flatnonzero((width < 1) | (height < 1) | (left < 0) | (top < 0))).size:
            raise DataError(f"{manifest.file}: no box inside an image in {manifest.where(wrong.tolist())}", "box")
        return np.stack([top, left, height, width], 1)
    if options.centre:
        if len(options.centre) != 2 or not options.side:
            raise DataError("names the columns of x and y, and needs `side`", "centre")
        found = [pixels_in(manifest, name, "centre").astype(np.int32) for name in options.centre]
        x, y = found
        side = np.full_like(x, options.side)
        return np.stack([y - options.side // 2, x - options.side // 2, side, side], 1)
    return None
