"""The reader "dicom": one frame of a DICOM file -> a plane in the units of its modality. No torch."""

from __future__ import annotations

import re
import warnings
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from dinomx_core.declare.numbers import known_type
from dinomx_core.declare.reading import Plane, PlaneReader
from dinomx_core.errors import DataError

if TYPE_CHECKING:
    from pydicom import Dataset

    from dinomx_medical_multichannel.plugin import Dicom

warnings.filterwarnings("ignore", module="pydicom")  # of values that break the standard without harm

Range = tuple[float, float]
DEFLATED = "1.2.840.10008.1.2.1.99"
# What is decoded as RGB: pydicom converts the first two, decoders of JPEG 2000 the others.
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
GREYS = ("MONOCHROME1", "MONOCHROME2")
PALETTE = "PALETTE COLOR"
SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
NO_UNITS = ("", "US")  # "US": unspecified
# Attributes beside those of group 0028 that pixels are made with.
TAGS = ("Modality", "Units", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", *SPACINGS)
KEEP = ("Rows", "Columns", "BitsStored", "BitsAllocated", "PixelRepresentation", "PhotometricInterpretation")


class DicomReader(PlaneReader):
    """Decodes single frames, grey or colour; keeps nothing."""

    def __init__(self, options: Dicom):
        self.rescale = options.rescale

    def decode(self, file: Path | IO[bytes], frame: int) -> Plane:
        """A frame with the modality's rescaling, so that CT is in HU, and higher is brighter."""
        from pydicom.errors import InvalidDicomError

        try:
            if isinstance(file, Path):
                with file.open("rb") as stream:
                    return self._decode(stream, frame)
            return self._decode(file, frame)
        except DataError:
            raise
        except InvalidDicomError:
            raise DataError("is no DICOM file, or one without its preamble") from None
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror or error}") from None
        except Exception as error:  # pydicom raises whatever it stumbles over
            raise DataError(f"cannot be read as DICOM: {first_line(error)}") from None

    def _decode(self, stream: IO[bytes], frame: int) -> Plane:
        from pydicom import dcmread
        from pydicom.pixels import pixel_array

        header: Any = dcmread(stream, stop_before_pixels=True, specific_tags=[*group_28(), *TAGS])
        stream.seek(0)
        if fault := fault_of(header):
            raise DataError(fault)
        # A file of one frame is read whole, which deflated ones have to be; of several frames only what this one needs.
        several = int(header.get("NumberOfFrames") or 1) > 1 and header.file_meta.TransferSyntaxUID != DEFLATED
        source: Any = stream if several else dcmread(stream)
        try:
            pixels = pixel_array(source, index=frame)
        except RuntimeError as error:
            raise DataError(undecoded(header, error)) from None
        return self._plane(pixels, header, frame)

    def _plane(self, pixels: np.ndarray, header: Dataset, frame: int) -> Plane:
        """Decoded pixels (H, W) or (H, W, 3) -> what they mean."""
        from pydicom.pixels import apply_color_lut

        spacing = spacing_of(header, frame)
        kind = header.PhotometricInterpretation
        if kind == PALETTE:
            bits = header.RedPaletteColorLookupTableDescriptor[2]
            return Plane(channels_first(apply_color_lut(pixels, header)), full=(0, 2**bits - 1), spacing=spacing)
        full = stored_range(header, pixels)
        if kind in COLOURS:
            return Plane(channels_first(pixels), full=full, spacing=spacing)
        units = ""
        if self.rescale:
            pixels, full, units = rescaled(pixels, full, header, frame)
        if kind == "MONOCHROME1" and full is not None:
            pixels, units = inverted(pixels, full), ""
        return Plane(channels_first(pixels), units, full, spacing)


@cache
def group_28() -> list[int]:
    """Tags of the attributes that describe pixels."""
    from pydicom.datadict import DicomDictionary

    return [tag for tag in DicomDictionary if tag >> 16 == 0x0028]


def first_line(error: Exception) -> str:
    """What an error says, short."""
    return (str(error) or type(error).__name__).strip().splitlines()[0].rstrip(":")


def channels_first(pixels: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, C) -> (C, H, W)."""
    return known_type(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


def fault_of(header: Dataset) -> str:
    """Why a file's pixels cannot be decoded, as far as its header tells; "": they can."""
    from pydicom.pixels import get_decoder

    if "Rows" not in header or "Columns" not in header:
        return "holds no pixels"
    if missing := [name for name in KEEP if header.get(name) in (None, "")]:
        return f"does not say its {', '.join(missing)}, so that its pixels cannot be decoded"
    syntax = header.file_meta.get("TransferSyntaxUID")
    if not syntax:
        return "does not say its transfer syntax; write it anew with one (dcmtk: dcmconv)"
    kind = header.PhotometricInterpretation
    if kind not in (*GREYS, *COLOURS, PALETTE):
        return f"has pixels of the kind {kind}, which is not read; convert it to RGB or MONOCHROME2"
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        return f"is compressed as {syntax.name}, which is not decoded; export its frames as images"
    return "" if decoder.is_available else needs(decoder)


def needs(decoder: Any) -> str:
    """What to install for a transfer syntax."""
    packages = sorted(set(re.findall(r"pylibjpeg-\w+", " ".join(decoder.missing_dependencies))))
    extra = 'pip install "dinomx-medical-multichannel[decoders]"'
    return f"is compressed as {decoder.UID.name}, which no installed package decodes; {extra} ({', '.join(packages)})"


def undecoded(header: Dataset, error: Exception) -> str:
    """Why decoders failed; where not all of them are installed, another may do it."""
    from pydicom.pixels import get_decoder

    decoder = get_decoder(header.file_meta.TransferSyntaxUID)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    why = lines[-1] if lines else type(error).__name__
    if any("pylibjpeg" in package for package in decoder.missing_dependencies):
        why += '; other decoders may know it: pip install "dinomx-medical-multichannel[decoders]"'
    return f"cannot be decoded ({decoder.UID.name}): {why}"


def stored_range(header: Dataset, pixels: np.ndarray) -> Range | None:
    """The range of the bits that are said to be stored, or of all bits where pixels lie outside of it; None for floats."""
    if pixels.dtype.kind == "f":
        return None
    for bits in (header.BitsStored, header.BitsAllocated):
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if header.PixelRepresentation else (0, (1 << bits) - 1)
        if not pixels.size or (low <= pixels.min() and pixels.max() <= high):
            break
    return low, high


def functional(header: Dataset, frame: int, sequence: str) -> Any:
    """What an enhanced multi-frame file says of a frame, or of all of them; None where it says nothing."""
    of_frames = header.get("PerFrameFunctionalGroupsSequence") or ()
    for groups in (of_frames[frame : frame + 1], (header.get("SharedFunctionalGroupsSequence") or ())[:1]):
        for group in groups:
            if group.get(sequence):
                return group[sequence][0]
    return None


def rescaled(
    pixels: np.ndarray, full: Range | None, header: Dataset, frame: int
) -> tuple[np.ndarray, Range | None, str]:
    """Pixels, their range and units once the modality's table or slope and intercept are applied. Whole numbers stay whole."""
    from pydicom.pixels import apply_modality_lut

    if header.get("ModalityLUTSequence"):
        table = header.ModalityLUTSequence[0]
        units = str(table.get("ModalityLUTType") or "")
        bits = table.LUTDescriptor[2]
        return apply_modality_lut(pixels, header), (0, (1 << bits) - 1), "" if units in NO_UNITS else units
    source = functional(header, frame, "PixelValueTransformationSequence") or header
    slope, intercept = source.get("RescaleSlope"), source.get("RescaleIntercept")
    if slope is None or intercept is None:
        return pixels, full, ""
    slope, intercept = float(slope), float(intercept)
    units = units_of(source, header)
    if full is not None:
        low, high = sorted(slope * end + intercept for end in full)
        full = low, high
        if slope.is_integer() and intercept.is_integer():
            kind = whole_type(full, pixels.dtype)
            if kind:
                return (pixels.astype(np.int64) * int(slope) + int(intercept)).astype(kind), full, units
    return (pixels * slope + intercept).astype(np.float32), full, units


def whole_type(full: Range, kind: np.dtype) -> str:
    """The smallest type, the pixels' own first, that holds a range; "" where none of up to 32 bits does."""
    for name in (kind.name, "int16", "int32", "uint32"):
        if np.iinfo(name).min <= full[0] and full[1] <= np.iinfo(name).max:
            return name
    return ""


def units_of(source: Dataset, header: Dataset) -> str:
    """Units of rescaled numbers: as the file says, HU of CT that does not say."""
    said = str(source.get("RescaleType") or "")
    if not said and header.get("Modality") == "CT":
        return "HU"
    return str(header.get("Units") or "") if said in NO_UNITS else said


def inverted(pixels: np.ndarray, full: Range) -> np.ndarray:
    """The same within their range, the highest for the lowest."""
    if pixels.dtype.kind == "f":
        return (np.float64(full[0] + full[1]) - pixels).astype(np.float32)
    return (int(full[0] + full[1]) - pixels.astype(np.int64)).astype(pixels.dtype)


def spacing_of(header: Dataset, frame: int) -> tuple[float, float] | None:
    """(row, column) millimetres of a pixel: in the patient where the file says so, otherwise on the detector."""
    source = functional(header, frame, "PixelMeasuresSequence") or header
    for name in SPACINGS:
        said = source.get(name)
        if said and not isinstance(said, str) and len(said) == 2 and min(said) > 0:
            return float(said[0]), float(said[1])
    return None
