"""Names and shapes of the tensors in a torch checkpoint, read without torch and without running anything that the file names."""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import attrs

from dinomx_core.errors import DataError


@attrs.frozen
class Shape:
    """What is known of a tensor that was not read."""

    shape: tuple[int, ...]


class Inert:
    """Stands for anything else that the pickle makes: it takes every call and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Inert":
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> "Inert":
        return self

    def append(self, item: Any) -> None:
        """A pickle may fill what it made, as a list"""

    def extend(self, items: Any) -> None:
        """or all at once,"""

    def __setitem__(self, key: Any, value: Any) -> None:
        """or as a table."""


def _tensor(storage: Any, offset: Any, size: Any, *rest: Any) -> Shape:
    return Shape(tuple(size))


def _first(value: Any, *rest: Any) -> Any:
    return value


KNOWN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch", "Size"): tuple,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return KNOWN.get((module, name), Inert)

    def persistent_load(self, pid: Any) -> Any:
        return pid


def read_shapes(file: Path) -> Any:
    """The checkpoint's nested tables with a `Shape` for each tensor. Raises DataError (key "weights") when it is no such file."""
    try:
        with zipfile.ZipFile(file) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            with archive.open(name) as stream:
                return _Reader(stream).load()
    except Exception as error:  # a file that is not what it says breaks in ways without number
        message = f"{file}: is no whole torch checkpoint of today's format ({type(error).__name__}: {error})"
        raise DataError(f"{message}; fetch it again, or save it anew with a recent torch", "weights") from None
