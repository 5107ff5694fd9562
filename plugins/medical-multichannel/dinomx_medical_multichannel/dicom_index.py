"""What DICOM files hold: series in the order of their slices, from headers alone."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from dinomx_core.declare.reading import Index, Stack
from dinomx_medical_multichannel.dicom import DEFLATED, KEEP, fault_of, first_line, functional

if TYPE_CHECKING:
    from pydicom import Dataset

AT_ONCE = 4  # files whose headers are read side by side: on a network each is a wait
SUFFIXES = (".dcm", ".dicom", ".ima")
DIRECTORY = "1.2.840.10008.1.3.10"  # a DICOMDIR
GROUPS = (b"\x02\0", b"\x08\0", b"\0\x08")  # how data sets begin that lack the preamble
AHEAD = 1 << 16  # bytes read at a time: most headers are shorter
TAGS = (
    *KEEP,
    *("NumberOfFrames", "SamplesPerPixel"),
    *(
        "SeriesInstanceUID",
        "StudyInstanceUID",
        "SOPInstanceUID",
        "PatientID",
        "Modality",
        "InstanceNumber",
        "AcquisitionNumber",
    ),
    *("ImagePositionPatient", "ImageOrientationPatient"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
Numbers = tuple[float, ...]


@attrs.frozen
class Slice:
    """A frame of a file: to which series it belongs, and what says where it stands there. `kind`: slices that differ in it, such as
    in their size, are no neighbours. at: millimetres along the slices' normal."""

    number: int
    frame: int
    series: str
    kind: tuple[Any, ...]
    modality: str
    patient: str
    study: str
    uid: str
    at: float | None
    taken: tuple[int, int]  # acquisition and instance number

    @property
    def itself(self) -> tuple[Any, ...]:
        """What only copies have in common; unique ids alone are not, after some anonymisers."""
        return self.uid, self.frame, self.kind, self.at, self.taken


@attrs.frozen
class NoDicom:
    """A file of another kind."""


def index(options: Any, files: Sequence[Path]) -> Index:
    """Stacks of slices, a series each where all its slices are alike."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(look, range(len(files)), files))
    others = sum(isinstance(one, NoDicom) for one in found)
    faults = tuple(f"{file.name}: {one}" for file, one in zip(files, found) if isinstance(one, str))
    notes = [f"{others} files are no DICOM images and are left out"] if others else []
    series = defaultdict(list)
    for one in found:
        if isinstance(one, list):
            for each in one:
                series[each.series or f"file {each.number}"].append(each)
    told: Counter[str] = Counter()
    stacks = [stack for name in series for stack in stacks_of(series[name], told)]
    return Index(tuple(stacks), faults, (*notes, *(text.format(count=count) for text, count in told.items())))


def look(number: int, file: Path) -> list[Slice] | NoDicom | str:
    """The slices of a file; or what is wrong with it."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        with file.open("rb", AHEAD) as opened:
            header = dcmread(opened, stop_before_pixels=True, specific_tags=list(TAGS))
            more = header.file_meta.get("TransferSyntaxUID") == DEFLATED or bool(opened.read(1))
        if header.file_meta.get("MediaStorageSOPClassUID") == DIRECTORY:
            return NoDicom()
        return fault_of(header) or (list(slices(number, header)) if more else "holds no pixels")
    except InvalidDicomError:
        return without_preamble(file)
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    except Exception as error:  # pydicom raises whatever it stumbles over
        return f"cannot be read as DICOM: {first_line(error)}"


def without_preamble(file: Path) -> NoDicom | str:
    """What a file is that does not begin as DICOM files do."""
    with file.open("rb") as opened:
        start = opened.read(8)
    if len(start) == 8 and start[:2] in GROUPS and start[3 if start[0] else 2] == 0:
        return "lacks the preamble of a DICOM file; write it anew with one (dcmtk: dcmconv --read-dataset)"
    return "is no DICOM file" if file.suffix.lower() in SUFFIXES else NoDicom()


def slices(number: int, header: Dataset) -> Iterator[Slice]:
    """The frames of a file."""
    frames = int(header.get("NumberOfFrames") or 1)
    size = (header.Rows, header.Columns, header.get("SamplesPerPixel") or 1)
    for frame in range(frames):
        source = functional(header, frame, "PlaneOrientationSequence") or header
        orientation = numbers(source, "ImageOrientationPatient", 6)
        place = functional(header, frame, "PlanePositionSequence") or header
        position = numbers(place, "ImagePositionPatient", 3)
        if frames > 1 and place is header:
            position = ()  # one for all frames says nothing of their order
        at = None
        if position and orientation:
            at = float(np.dot(np.cross(orientation[:3], orientation[3:]), position))
        turned = tuple(round(value, 2) + 0.0 for value in orientation)
        yield Slice(
            number,
            frame,
            str(header.get("SeriesInstanceUID") or ""),
            (size, turned, number if frames > 1 else -1),
            str(header.get("Modality") or ""),
            str(header.get("PatientID") or ""),
            str(header.get("StudyInstanceUID") or header.get("SeriesInstanceUID") or ""),
            str(header.get("SOPInstanceUID") or number),
            at,
            (whole(header, "AcquisitionNumber"), frame if frames > 1 else whole(header, "InstanceNumber")),
        )


def numbers(source: Any, name: str, count: int) -> Numbers:
    """An attribute of so many numbers; () where there is none."""
    said = source.get(name)
    return tuple(float(value) for value in said) if said and len(said) == count else ()


def whole(header: Dataset, name: str) -> int:
    """An attribute that is a whole number; 0 where there is none."""
    return int(header.get(name) or 0)


def stacks_of(found: list[Slice], told: Counter[str]) -> Iterator[Stack]:
    """The slices of a series as stacks: alike, in order, each place once. `told` counts what a person should know."""
    once = {each.itself: each for each in reversed(found)}
    if copies := len(found) - len(once):
        told["{count} copies of slices are left out"] += copies
    kinds = defaultdict(list)
    for each in sorted(once.values(), key=lambda each: each.number):
        kinds[each.kind].append(each)
    if len({kind[:2] for kind in kinds}) > 1:
        told["{count} series hold slices of several sizes or orientations; each is a stack of its own"] += 1
    parts = [part for alike in kinds.values() for part in layers(alike, told)]
    name = hashlib.blake2b(found[0].series.encode(), digest_size=4).hexdigest()
    if found[0].study and not all(each.patient for each in found):
        told["{count} series do not say their patient; each study is a group of its own"] += 1
    for part, ordered in enumerate(parts, 1):
        id = f"{found[0].modality or 'series'}-{name}" + (f"-{part}" if len(parts) > 1 else "")
        planes = tuple((each.number, each.frame) for each in ordered)
        yield Stack(planes, id=id if found[0].series else "", group=ordered[0].patient or ordered[0].study)


def layers(alike: list[Slice], told: Counter[str]) -> list[list[Slice]]:
    """Slices along their normal; those of a place that is there several times (phases, echoes) go to one stack each, as they were taken.
    Without places: as they are numbered."""
    if any(each.at is None for each in alike):
        if len({each.number for each in alike}) > 1:
            told["{count} series do not say where their slices lie and are ordered by their numbers"] += 1
        return [sorted(alike, key=lambda each: each.taken)]
    places = defaultdict(list)
    for each in sorted(alike, key=lambda each: each.taken):
        places[round(each.at or 0.0, 2)].append(each)
    deep = max(map(len, places.values()))
    if deep > 1:
        told["{count} series hold places several times, such as phases; these are stacks of their own"] += 1
    return [[places[at][layer] for at in sorted(places) if layer < len(places[at])] for layer in range(deep)]
