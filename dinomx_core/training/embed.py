"""Embeddings of a data set's images, written with their ids."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dinomx_core.errors import DataError
from dinomx_core.training.contracts import Dataset
from dinomx_core.training.evaluation import read_ahead
from dinomx_core.training.flow import Item, Tokens
from dinomx_core.training.model import Model

TAKE: dict[str, Callable[[Tokens], torch.Tensor]] = {
    "cls": lambda tokens: tokens.summary,
    "patch-mean": lambda tokens: tokens.patches.mean(1),
    "patches": lambda tokens: tokens.patches,
}
Batch = tuple[list[str], list[str], np.ndarray]  # ids, class names ("" where there are none), embeddings


def embed_images(
    model: Model,
    dataset: Dataset,
    classes: tuple[str, ...],
    out: Path,
    tokens: str,
    batch_size: int,
    progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    """Write embeddings (M, D), or (M, N, D) for patches, float32. Returns counts; raises DataError when nothing can be read."""
    if tokens not in TAKE:
        raise DataError(f'tokens: expected one of {", ".join(TAKE)}, got "{tokens}"')
    if out.suffix not in WRITERS:
        raise DataError(f"{out}: expected a name that ends with {' or '.join(WRITERS)}")
    if not out.absolute().parent.is_dir() or out.is_dir():
        what = "is a folder; name a file in it" if out.is_dir() else "there is no such folder to write to"
        raise DataError(f"{out if out.is_dir() else out.absolute().parent}: {what}")
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    faults: list[str] = []

    def batches() -> Iterator[Batch]:
        items: list[Item] = []
        for number, (_, item) in enumerate(read_ahead(dataset, faults.append, range(len(dataset))), 1):
            items.append(item)
            if len(items) == batch_size:
                yield finish(items)
                items.clear()
            if progress:
                progress(number, len(dataset))
        if items:
            yield finish(items)

    def finish(items: list[Item]) -> Batch:
        names = ["" if item.label is None else classes[item.label] for item in items]
        ids = [os.fsencode(item.id).decode("utf-8", "backslashreplace") for item in items]  # not every name is UTF-8
        return ids, names, TAKE[tokens](model.encode(items)).float().cpu().numpy()

    draft = out.with_name(f".{out.stem}.draft{out.suffix}")
    try:
        shape = WRITERS[out.suffix](draft, batches())
        if not shape:
            raise DataError(f"none of the {len(dataset)} images can be read; the first: {faults[0]}")
        os.replace(draft, out)
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror or error}") from None
    finally:
        draft.unlink(missing_ok=True)
    return {"images": len(dataset) - len(faults), "shape": shape, "unreadable": faults}


def write_npz(file: Path, batches: Iterator[Batch]) -> tuple[int, ...]:
    """Arrays `ids`, `labels` (class names) and `embeddings`."""
    parts = list(batches)
    if not parts:
        return ()
    embeddings = np.concatenate([part[2] for part in parts])
    ids, labels = (np.array([name for part in parts for name in part[n]]) for n in (0, 1))
    np.savez(file, ids=ids, labels=labels, embeddings=embeddings)
    return embeddings.shape


def write_parquet(file: Path, batches: Iterator[Batch]) -> tuple[int, ...]:
    """Columns `id`, `label` and `embedding` (lists of D, or of N lists of D), a row group a batch."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise DataError('Parquet needs pyarrow: pip install "dinomx[parquet]"') from None
    writer, count, shape = None, 0, ()
    try:
        for ids, labels, embeddings in batches:
            kind: Any = pa.float32()
            for size in reversed(embeddings.shape[1:]):
                kind = pa.list_(kind, size)
            values: Any = pa.array(embeddings.reshape(-1))
            for size in reversed(embeddings.shape[1:]):
                values = pa.FixedSizeListArray.from_arrays(values, size)
            schema = pa.schema([("id", pa.string()), ("label", pa.string()), ("embedding", kind)])
            writer = writer or parquet.ParquetWriter(file, schema)
            writer.write_table(
                pa.Table.from_arrays([pa.array(ids), pa.array(labels), values.cast(kind)], schema=schema)
            )
            count += len(ids)
            shape = (count, *embeddings.shape[1:])
    finally:
        if writer:
            writer.close()
    return shape


WRITERS: dict[str, Callable[[Path, Iterator[Batch]], tuple[int, ...]]] = {".npz": write_npz, ".parquet": write_parquet}
