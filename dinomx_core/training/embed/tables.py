"""Embeddings and the columns beside them, written as .npz or Parquet. No torch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np

from dinomx_core.builtin.manifest import first_line, plain, pyarrow
from dinomx_core.errors import DataError
from dinomx_core.training.embed.images import EMBEDDING, PLURALS

Frame = tuple[dict[str, Any], np.ndarray]  # columns of some rows, as `Columns` gives them, and their embeddings
GROUP = 32 << 20  # bytes of embeddings that make a row group


class Columns:
    """Columns of all rows, of which some are taken: as lists or, for Parquet, as pyarrow's arrays of one type a column."""

    def __init__(self, columns: Mapping[str, Any], parquet: bool):
        self.columns = {name: arrow(name, values) if parquet else plain(values) for name, values in columns.items()}

    def take(self, rows: Sequence[int]) -> dict[str, Any]:
        """The values of some rows."""
        return {name: chosen(values, rows) for name, values in self.columns.items()}


def arrow(name: str, values: Any) -> Any:
    """A column as pyarrow has it; texts where every value is missing. Raises DataError where it has no type for them."""
    pa, _ = pyarrow()
    if not isinstance(values, (list, tuple)):
        return values.unify_dictionaries()
    try:
        return pa.chunked_array([pa.array(values, pa.string() if all(value is None for value in values) else None)])
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise DataError(f'column "{name}" cannot be written as Parquet: {first_line(error)}') from None


def chosen(values: Any, rows: Sequence[int]) -> Any:
    """Some of a column's values."""
    if isinstance(values, list):
        return [values[row] for row in rows]
    pa, _ = pyarrow()
    first, last = (min(rows), max(rows) + 1) if len(rows) else (0, 0)
    return values.slice(first, last - first).take(pa.array([row - first for row in rows], pa.int64()))


def write_npz(file: Path, frames: Iterator[Frame], facts: Callable[[], dict[bytes, bytes]]) -> tuple[int, ...]:
    """An array a column, and `embeddings`. Returns their shape; `facts` have no place there."""
    parts = list(frames)
    if not parts:
        return ()
    names = list(parts[0][0])
    arrays = {PLURALS.get(name, name): array([v for columns, _ in parts for v in columns[name]]) for name in names}
    arrays[PLURALS[EMBEDDING]] = np.concatenate([embeddings for _, embeddings in parts])
    with ZipFile(file, "w") as archive:  # numpy.savez takes no array of the name "file"
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, values, allow_pickle=False)
    return arrays[PLURALS[EMBEDDING]].shape


def array(values: list[Any]) -> np.ndarray:
    """Numbers (NaN where one is missing), truth values, or texts of everything else ("" where it is missing)."""
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return np.array(values)
    if kinds <= {int, float, type(None)} and kinds != {type(None)}:
        found = np.array(values, dtype=None if kinds == {int} else np.float64)
        if found.dtype != np.object_:  # there are larger whole numbers than numpy has
            return found
    return np.array(["" if value is None else str(value) for value in values], dtype=np.str_)


def write_parquet(file: Path, frames: Iterator[Frame], facts: Callable[[], dict[bytes, bytes]]) -> tuple[int, ...]:
    """The columns, then `embedding`: lists of D, or of N lists of D. `facts` are asked for at the end and stand in the file's metadata.
    Returns the embeddings' shape."""
    pa, parquet = pyarrow()
    writer, waiting, size = None, list[Any](), 0
    shape: tuple[int, ...] = ()
    try:
        for columns, embeddings in frames:
            kind: Any = pa.float32()
            values: Any = pa.array(embeddings.reshape(-1), pa.float32())
            for length in reversed(embeddings.shape[1:]):
                kind = pa.list_(kind, length)
                values = pa.FixedSizeListArray.from_arrays(values, length)
            table = pa.table({**columns, EMBEDDING: values.cast(kind)})
            if not writer:
                dictionaries = [name for name in table.column_names if name != EMBEDDING]
                writer = parquet.ParquetWriter(file, table.schema, use_dictionary=dictionaries)
            waiting.append(table)
            size += embeddings.nbytes
            if size >= GROUP:
                writer.write_table(pa.concat_tables(waiting))
                waiting, size = [], 0
            shape = ((shape[0] if shape else 0) + len(embeddings), *embeddings.shape[1:])
        if writer and waiting:
            writer.write_table(pa.concat_tables(waiting))
        if writer and (found := facts()):
            writer.add_key_value_metadata(found)
    finally:
        if writer:
            writer.close()
    return shape


WRITERS = {".npz": write_npz, ".parquet": write_parquet}


def size_of(file: Path) -> tuple[int, ...]:
    """The size of one image's embedding in a Parquet file of ours: (D,) or (N, D)."""
    _, parquet = pyarrow()
    kind, sizes = parquet.read_schema(file).field(EMBEDDING).type, list[int]()
    while hasattr(kind, "list_size"):
        sizes.append(kind.list_size)
        kind = kind.value_type
    return tuple(sizes)


def read_embeddings(file: Path) -> Iterator[np.ndarray]:
    """The embeddings (M, D) of a Parquet file of ours, in order, some rows at a time."""
    _, parquet = pyarrow()
    with parquet.ParquetFile(file) as opened:
        width = opened.schema_arrow.field(EMBEDDING).type.list_size
        for batch in opened.iter_batches(columns=[EMBEDDING]):
            yield batch.column(0).flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
