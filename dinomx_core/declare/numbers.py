"""Number types of decoded pixels: files have many, what comes after reading knows a few."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dinomx_core.errors import DataError

if TYPE_CHECKING:
    import numpy as np

PIXELS = ("bool", "uint8", "uint16", "uint32", "int16", "int32", "float32", "float64")
WIDER = {"int8": "int16", "float16": "float32"}  # the same numbers in the next type that pixels have
NARROWER = {"int64": ("int32", "uint32"), "uint64": ("uint32",)}


def known_type(pixels: np.ndarray) -> np.ndarray:
    """The same numbers in the machine's byte order and in one of `PIXELS`. Raises DataError where none of these holds them."""
    kind = pixels.dtype.name
    if kind in PIXELS or kind in WIDER:
        return pixels.astype(WIDER.get(kind, kind), copy=False)
    if kind in NARROWER:
        import numpy as np

        low, high = (int(pixels.min()), int(pixels.max())) if pixels.size else (0, 0)
        for narrow in NARROWER[kind]:
            if np.iinfo(narrow).min <= low and high <= np.iinfo(narrow).max:
                return pixels.astype(narrow)
        raise DataError(f"holds numbers from {low} to {high}, more than 32 bits take; store them as floats")
    raise DataError(f"holds numbers of type {pixels.dtype}; store them as integers of up to 32 bits or as floats")
