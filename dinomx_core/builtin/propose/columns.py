"""Which columns of a manifest are what, by their names."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dinomx_core.builtin.manifest import READERS, named, plain
from dinomx_core.errors import DataError

PATHS = ("path", "image", "file", "filename", "file_name", "filepath", "file_path", "image_path", "img", "img_path")
LABELS = ("label", "class", "diagnosis", "target", "category", "finding", "species", "phenotype")
GROUPS = (
    "patient",
    "patient_id",
    "patientid",
    "subject",
    "subject_id",
    "group",
    "case",
    "case_id",
    "plate",
    "slide",
    "well",
)
CENTRES = (("x", "y"), ("centre_x", "centre_y"), ("center_x", "center_y"), ("cx", "cy"))
BOXES = (("left", "top", "width", "height"), ("x", "y", "width", "height"), ("x", "y", "w", "h"))
MASKS = ("mask", "mask_path", "segmentation")
SIDE = 64  # pixels around a centre where nothing says how many


def read_columns(file: Path) -> dict[str, list[Any]]:
    """A manifest's columns by name. Raises DataError where it cannot be read or has no rows."""
    try:
        _, numbers, columns = READERS[file.suffix.lower()](file)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from None
    if not len(numbers):
        raise DataError(f"{file}: has no rows")
    return {name: plain(column) for name, column in columns.items()}


def guess_columns(file: Path, columns: Mapping[str, Sequence[Any]]) -> tuple[dict[str, Any], list[str]]:
    """Options of the data set `manifest`, and notes. Raises DataError where no column holds paths."""
    paths = one_of(columns, PATHS) or next((name for name in columns if holds_files(file, columns[name])), "")
    if not paths:
        raise DataError(
            f"{file}: no column holds paths of images (below {file.parent}, or absolute); its columns are {named(columns)}"
        )
    table: dict[str, Any] = {"columns": [paths]} if paths != "path" else {}
    notes: list[str] = []
    for key, names in (("label", LABELS), ("group", GROUPS)):
        name = one_of(columns, names)
        if name and all(isinstance(value, (str, int)) for value in columns[name]):
            table[key] = name
        elif name:
            notes.append(
                f'column "{name}" could be the {key}, but has missing values or other numbers, and is left out'
            )
    if box := several_of(columns, BOXES):
        table["box"] = box
    elif centre := several_of(columns, CENTRES):
        table |= {"centre": centre, "side": SIDE}
        notes.append(f"data.side = {SIDE} px around each centre is a guess; set what your objects need")
    if (mask := one_of(columns, MASKS)) and mask != paths:
        table["mask"] = mask
    used = {paths, *(name for value in table.values() for name in (value if isinstance(value, list) else [value]))}
    rest = [name for name in columns if name not in used and not any(f'"{name}"' in note for note in notes)]
    if rest and not {"label", "group"} <= set(table):
        notes.append(
            f"columns {named(rest)} are not used; set data.label or data.group if one holds classes or patients"
        )
    return table, notes


def one_of(columns: Mapping[str, Any], names: Sequence[str]) -> str:
    """The first column of such a name, in any case; "" where there is none."""
    lower = {name.lower(): name for name in reversed(list(columns))}
    return next((lower[name] for name in names if name in lower), "")


def several_of(columns: Mapping[str, Any], sets: Sequence[tuple[str, ...]]) -> list[str]:
    """The columns of the first set that is there whole."""
    return next((found for names in sets if all(found := [one_of(columns, [name]) for name in names])), [])


def holds_files(file: Path, values: Sequence[Any]) -> bool:
    """Whether the first values of a column are files."""
    some = values[:3]
    return all(isinstance(value, str) and os.path.isfile(file.parent / value) for value in some)
