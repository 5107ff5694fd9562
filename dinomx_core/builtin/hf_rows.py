"""The rows of a Hugging Face data set on this machine, by number. No torch, and nothing is looked for elsewhere."""

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from dinomx_core.builtin.columns import Column, in_order
from dinomx_core.builtin.labels import labels_of
from dinomx_core.builtin.looking import Look, look
from dinomx_core.builtin.manifest import where
from dinomx_core.builtin.remote import is_url, local
from dinomx_core.builtin.sources import HfDataset
from dinomx_core.declare.reading import Plane
from dinomx_core.errors import DataError
from dinomx_core.training.construct import construct

SAVED = ("state.json", "dataset_dict.json")  # what `save_to_disk` leaves in a folder
FILES = {".parquet": "parquet", ".arrow": "arrow"}


class Rows:
    """Rows of one or all parts. labels: as `labels` has them. groups: (N,) numbers in `group_names`, -1
    where there is none."""

    def __init__(self, options: HfDataset):
        self.options = options
        path = Path(os.path.expanduser(options.path))
        self.folder = path if path.is_dir() else path.parent
        table = opened(path, options.path, options.split)
        self._check_columns(table)
        self.classes, self.labels = self._labels(table)
        self.group_names, self.groups = self._column(table, "group")
        self.reader = construct(options.reader) if options.reader else None
        self.images, self.kind = self._images(table.select_columns([options.image]))
        self.digest = self._digest(table)

    def __len__(self) -> int:
        return len(self.labels)

    def _check_columns(self, table: Any) -> None:
        """Raise DataError for a column that is not there, but for labels and groups that nobody asked for."""
        for key, default in (("image", ""), ("label", "label"), ("group", "group")):
            name = getattr(self.options, key)
            if name and name != default and name not in table.column_names:
                have = ", ".join(f'"{column}"' for column in table.column_names)
                raise DataError(f'"{self.options.path}" has no column "{name}"; its columns are {have}', key)
        if not len(table):
            raise DataError(f'"{self.options.path}" has no rows', "path")

    def _labels(self, table: Any) -> tuple[tuple[str, ...], np.ndarray]:
        """Classes, and each row's label (see `labels`)."""
        name = self.options.label
        if self.options.label_kind == "class" or name not in table.column_names:
            return self._column(table, "label")
        values = table.select_columns([name]).with_format("arrow")[:].column(name).to_pylist()
        known = getattr(getattr(table.features[name], "feature", None), "names", None)
        if known is not None:
            values = [value and [known[number] for number in value] for value in values]
        classes, labels, wrong = labels_of(values, self.options)
        if wrong:
            what = "number" if self.options.label_kind == "number" else "text or list of them"
            raise DataError(f'column "{name}" holds no {what} in {where("row", wrong)}', "label")
        return classes, labels

    def _column(self, table: Any, key: str) -> tuple[tuple[str, ...], np.ndarray]:
        """Values of a column and each row's number among them; a column of class names keeps their order."""
        name = getattr(self.options, key)
        if name not in table.column_names:
            return (), np.full(len(table), -1, np.int32)
        values = table.select_columns([name]).with_format("arrow")[:].column(name)
        names = getattr(table.features[name], "names", None)
        if names is not None:
            numbers = values.fill_null(-1).to_numpy().astype(np.int32)
            if numbers.min() < -1 or numbers.max() >= len(names):
                raise DataError(f'column "{name}" holds {numbers.max()}, and has {len(names)} classes', key)
            return tuple(names), numbers
        kind = str(values.type)
        if not any(word in kind for word in ("string", "int", "bool")) or "<" in kind:
            raise DataError(
                f'column "{name}" holds values of type {kind}; expected one text or whole number a row, or another label_kind',
                key,
            )
        coded = values.combine_chunks().dictionary_encode()
        coded = coded.combine_chunks() if hasattr(coded, "combine_chunks") else coded
        codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
        return in_order(Column(codes, tuple(map(str, coded.dictionary.to_pylist()))), ())

    def _images(self, table: Any) -> tuple[Any, str]:
        """The images' column as its rows are read, and of arrays their type of numbers."""
        import datasets

        feature = table.features[self.options.image]
        if isinstance(feature, datasets.Image):
            return table.cast_column(self.options.image, datasets.Image(decode=False)), ""
        if isinstance(feature, dict) and {"bytes", "path"} & set(feature):
            return table, ""
        kind = getattr(feature, "dtype", "")
        if kind in ("binary", "large_binary", "string", "large_string"):
            return table, ""
        if isinstance(feature, (datasets.Array2D, datasets.Array3D)) or type(feature).__name__ in (
            "List",
            "Sequence",
            "LargeList",
        ):
            return table.with_format("numpy"), number_of(feature)
        raise DataError(f'column "{self.options.image}" holds no images: its type is {feature}', "image")

    def _digest(self, table: Any) -> str:
        """Stands for the rows, wherever the files lie."""
        digest = hashlib.blake2b(f"{len(table)} {table.features} {self.options.split}".encode(), digest_size=8)
        digest.update(self.labels.tobytes() + self.groups.tobytes())
        return digest.hexdigest()

    def place(self, index: int) -> str:
        """A row as messages name it."""
        return f"{self.options.path}: row {index}"

    def read(self, index: int) -> tuple[Plane, str]:
        """One image, and its name: its path, or else the row's number. Raises DataError, naming the row, when it cannot be read."""
        index = range(len(self))[index]
        try:
            value = self.images[index][self.options.image]
            if self.kind:
                return self._array(np.asarray(value, self.kind)), str(index)  # the library makes int64 of whole numbers
            return self._encoded(value, str(index))
        except Exception as error:  # decoders raise whatever they stumble over
            raise DataError(f"{self.place(index)}: {error}") from None

    def _array(self, pixels: np.ndarray) -> Plane:
        if pixels.ndim not in (2, 3):
            raise DataError(f"holds an array of shape {pixels.shape}; expected rows and columns, and channels")
        if pixels.ndim == 2:
            return Plane(pixels[None])
        return Plane(pixels if self.options.axes == "CHW" else pixels.transpose(2, 0, 1))

    def _encoded(self, value: Any, number: str) -> tuple[Plane, str]:
        if self.reader is None:
            raise DataError("encoded images need a reader; name one")
        found: dict[str, Any] = {"bytes" if isinstance(value, bytes) else "path": value}
        found = value if isinstance(value, dict) else found
        data, path = found.get("bytes"), found.get("path") or ""
        if data is not None:
            stream = io.BytesIO(data)
            stream.name = path or number
            return self.reader.read(stream), path or number
        if not path:
            raise DataError("has no image")
        return self.reader.read(local(path) if is_url(path) else self.folder / path), path


def number_of(feature: Any) -> str:
    """The type of the numbers in an array or in lists of lists."""
    while hasattr(feature, "feature"):
        feature = feature.feature
    return feature.dtype if hasattr(feature, "dtype") else str(feature)


def opened(path: Path, name: str, split: str) -> Any:
    """The rows of a part. Raises DataError where there is no such data set or part, or `datasets` is not installed."""
    if not path.exists():
        raise DataError(
            f'there is no folder or file "{name}" (looked in {Path.cwd()}); data sets of the hub are fetched beforehand, with '
            "`hf download NAME --repo-type dataset --local-dir FOLDER`",
            "path",
        )
    try:
        import datasets
    except ImportError:
        raise DataError('needs the package datasets, which is not installed: pip install "dinomx[datasets]"') from None
    datasets.disable_progress_bars()
    try:
        found = loaded(datasets, path)
    except DataError:
        raise
    except Exception as error:  # whatever its builders raise
        told = str(error.__cause__ or error).strip().partition("\n")[0]
        raise DataError(f'"{name}" cannot be read as a Hugging Face data set: {told}', "path") from None
    if not isinstance(found, dict):
        found = {str(found.split or "train"): found}
    return part_of(datasets, found, name, split)


def loaded(datasets: Any, path: Path) -> Any:
    """A data set, or several by the names of parts."""
    if path.is_file():
        if path.suffix.lower() not in FILES:
            raise DataError(f'"{path}" is no Parquet or Arrow file; name one, or the data set\'s folder', "path")
        if path.suffix.lower() == ".arrow":
            return datasets.Dataset.from_file(str(path))
        return datasets.load_dataset("parquet", data_files=str(path))
    if any((path / file).exists() for file in SAVED):
        return datasets.load_from_disk(str(path))
    if not any(file.suffix.lower() in FILES for file in path.rglob("*")):
        raise DataError(f'"{path}" holds neither a saved data set nor Parquet or Arrow files', "path")
    return datasets.load_dataset(str(path))


def part_of(datasets: Any, found: dict[str, Any], name: str, split: str) -> Any:
    """One of the parts, or all of them one after another."""
    have = ", ".join(f'"{part}"' for part in found)
    if split == "all":
        return datasets.concatenate_datasets(list(found.values()))
    if split and split not in found:
        raise DataError(f'"{name}" has no part "{split}"; it has {have}', "split")
    if not split and len(found) > 1:
        raise DataError(f'"{name}" has the parts {have}; name one of them, or "all"', "split")
    return found[split or next(iter(found))]


def look_at(rows: Rows) -> Look:
    """What some images are like."""
    return look(lambda index: rows.read(index)[0], len(rows), len(rows), rows.options.channels)
