"""Manifests: lists of images in a CSV, JSON lines or Parquet file, a row an image, with columns of any kind beside. No torch."""

import csv
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs

from dinomx_core.errors import DataError

SHOWN = 5  # rows that a message names
CHECKERS, AT_ONCE = (
    16,
    1000,
)  # threads that look whether files are there (on a network each look is a wait), rows that each takes
KINDS = {bool: "true or false", int: "numbers", float: "numbers", str: "texts", list: "lists", dict: "tables"}
LINE, ROW = "line", "row"


@attrs.frozen
class Manifest:
    """A manifest's rows.

    paths: of the images as they are written, absolute or below the manifest's folder. numbers: of each row, where messages say it
    stands: its `unit` is a line of the text or, in Parquet, a row from 1. columns: the others by name, in order: lists, or pyarrow's
    chunked arrays where the file is Parquet; None is a missing value. digest: stands for all of it.
    """

    file: Path
    unit: str
    paths: tuple[str, ...]
    numbers: Sequence[int]
    columns: Mapping[str, Any]
    digest: str

    def place(self, row: int) -> Path:
        """The file of a row's image."""
        return self.file.parent / self.paths[row]

    def where(self, rows: Sequence[int]) -> str:
        """Rows as a message names them: "line 3", "lines 3, 5 and 12 more"."""
        return where(self.unit, [self.numbers[row] for row in rows])


def where(unit: str, numbers: Sequence[int]) -> str:
    """Numbers of rows as a message names them."""
    some = ", ".join(map(str, numbers[:SHOWN]))
    more = f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
    return f"{unit}{'s' if len(numbers) > 1 else ''} {some}{more}"


def is_manifest(path: Path) -> bool:
    """Whether a path is a file that `read_manifest` reads, by its name."""
    return path.suffix.lower() in READERS and not path.is_dir()


def read_manifest(file: Path, path_column: str = "path") -> Manifest:
    """Read a manifest; no image is looked for (see `check_files`). Raises DataError, which names lines, where it cannot be read, has no
    rows or no such column of texts, or names a column twice."""
    file = Path(os.path.expanduser(file)).absolute()
    if file.suffix.lower() not in READERS:
        raise DataError(f'"{file}" is no manifest; these are {", ".join(READERS)}', "path")
    try:
        digest = hashlib.blake2b(path_column.encode(), digest_size=8)
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
        unit, numbers, columns = READERS[file.suffix.lower()](file)
    except FileNotFoundError:
        raise DataError(f'there is no file "{file}"', "path") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is not UTF-8 text ({error}); save it as UTF-8", "path") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}", "path") from None
    if path_column not in columns:
        raise DataError(
            f'{file}: has no column "{path_column}" of the images\' paths; its columns are {named(columns)}',
            "path_column",
        )
    if not len(numbers):
        raise DataError(f"{file}: has no rows", "path")
    paths = columns.pop(path_column)
    paths = paths if isinstance(paths, list) else paths.to_pylist()
    if wrong := [row for row, path in enumerate(paths) if not isinstance(path, str) or not path]:
        rows = where(unit, [numbers[row] for row in wrong])
        raise DataError(f'{file}: column "{path_column}" holds no path in {rows}', "path_column")
    return Manifest(file, unit, tuple(paths), numbers, columns, digest.hexdigest())


def check_files(manifest: Manifest) -> None:
    """Raise DataError, naming the first, unless every image is a file. Addresses are not looked up: each would be a wait."""
    count = len(manifest.paths)
    parts = [range(first, min(first + AT_ONCE, count)) for first in range(0, count, AT_ONCE)]

    def missing(rows: range) -> list[int]:
        return [row for row in rows if "://" not in manifest.paths[row] and not os.path.isfile(manifest.place(row))]

    with ThreadPoolExecutor(CHECKERS) as pool:
        found = pool.map(missing, parts)
        lost = [row for part in found for row in part]
    if lost:
        some = "; ".join(f"{manifest.unit} {manifest.numbers[row]}: {manifest.paths[row]}" for row in lost[:SHOWN])
        more = f"; and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
        raise DataError(
            f"{manifest.file}: {len(lost)} of {count} images are not there (paths are absolute, or below "
            f"{manifest.file.parent}): {some}{more}",
            "path",
        )


def named(columns: Iterable[str]) -> str:
    """Names of columns, as messages list them."""
    return ", ".join(f'"{name}"' for name in columns) or "none"


def once(file: Path, names: Sequence[str], place: str = "") -> None:
    """Raise DataError for a name that stands there twice."""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{file}: {place}has the column {named(twice)} more than once; rename one of them", "path")


def read_csv(file: Path) -> tuple[str, list[int], dict[str, Any]]:
    """Every value is a text as it is written, so that 007 stays 007; an empty one is missing."""
    numbers: list[int] = []
    rows: list[list[str]] = []
    with file.open(encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text, strict=True)
        try:
            header = next(reader, [])
            if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
                raise DataError(
                    f'{file}: its first line "{header[0]}" has no comma; separate the columns by commas', "path"
                )
            once(file, header)
            if "" in header:
                raise DataError(
                    f"{file}: column {header.index('') + 1} has no name; give it one or leave it out", "path"
                )
            last = reader.line_num
            for row in reader:
                first, last = last + 1, reader.line_num
                if not row:
                    continue
                if len(row) != len(header):
                    raise DataError(f"{file}: line {first} has {len(row)} values for {len(header)} columns", "path")
                numbers.append(first)
                rows.append(row)
        except csv.Error as error:
            raise DataError(f"{file}: line {reader.line_num} cannot be read as CSV: {error}", "path") from None
    values = zip(*rows) if rows else ((),) * len(header)
    return LINE, numbers, {name: [value or None for value in column] for name, column in zip(header, values)}


def read_jsonl(file: Path) -> tuple[str, list[int], dict[str, Any]]:
    """An object a line; a value that a line leaves out, or null, is missing. The values of a column are of one type."""
    numbers: list[int] = []
    columns: dict[str, list[Any]] = {}
    seen: dict[str, tuple[str, int]] = {}  # the kind of each column, and where it was seen first
    with file.open(encoding="utf-8-sig") as text:
        for number, line in enumerate(text, 1):
            if not line.strip():
                continue
            for name, value in read_object(file, number, line).items():
                column = columns.setdefault(name, [])
                column.extend([None] * (len(numbers) - len(column)))
                column.append(value)
                if value is not None:
                    kind, first = seen.setdefault(name, (KINDS[type(value)], number))
                    if kind != KINDS[type(value)]:
                        raise DataError(
                            f'{file}: column "{name}" holds {kind} (line {first}) and {KINDS[type(value)]} (line {number}); '
                            "give it one type",
                            "path",
                        )
            numbers.append(number)
    for column in columns.values():
        column.extend([None] * (len(numbers) - len(column)))
    return LINE, numbers, columns


def read_object(file: Path, number: int, line: str) -> dict[str, Any]:
    """One line's object."""

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        once(file, [name for name, _ in found], f"line {number} ")
        return dict(found)

    try:
        row = json.loads(line.strip(), object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        raise DataError(f"{file}: line {number} is no JSON: {error.msg}, at character {error.colno}", "path") from None
    if not isinstance(row, dict):
        raise DataError(f'{file}: line {number} is no object such as {{"path": "a.png"}}', "path")
    return row


def read_parquet(file: Path) -> tuple[str, Sequence[int], dict[str, Any]]:
    """Columns as they are."""
    pa, parquet = pyarrow()
    try:
        with parquet.ParquetFile(file) as opened:
            once(file, opened.schema_arrow.names)
            table = opened.read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read as Parquet: {first_line(error)}", "path") from None
    return ROW, range(1, table.num_rows + 1), dict(zip(table.column_names, table.columns))


def first_line(error: BaseException) -> str:
    """What an error says, without its details."""
    return str(error).strip().partition("\n")[0]


def pyarrow() -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet. Raises DataError where they are not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DataError('Parquet needs pyarrow: pip install "dinomx[parquet]"') from None
    return pyarrow, parquet


def plain(column: Any) -> list[Any]:
    """A column's values as Python's."""
    return column if isinstance(column, list) else list(column) if isinstance(column, tuple) else column.to_pylist()


def numbered(column: Any) -> Iterator[int]:
    """A number for each value of a column: equal ones have the same, -1 is a missing one (None, or a number that is none)."""
    numbers: dict[Any, int] = {}
    for value in plain(column):
        if value is None or value != value:
            yield -1
        else:
            key = json.dumps(value, default=str) if isinstance(value, (list, dict)) else value
            yield numbers.setdefault(key, len(numbers))


READERS = {".csv": read_csv, ".jsonl": read_jsonl, ".parquet": read_parquet}
