"""The options of data sets that are no files of the user's, and of intensities. No torch."""

from typing import Literal

import attrs

from dinomx_core.declare.facts import DataInfo, Draft, Part
from dinomx_core.declare.reading import Sampled
from dinomx_core.declare.values import Chosen, option, positive_values, range_pair, slots
from dinomx_core.errors import DataError


@attrs.frozen
class Digits:
    """The 1,797 handwritten digits (8 x 8 px, grey, 10 classes) that come with scikit-learn.

    Every fifth image is the test part.
    """

    split: Literal["train", "test", "all"] = option("all", "which part")


def count_digits(options: Digits) -> DataInfo:
    """Known without reading."""
    count = {"train": 1438, "test": 359, "all": 1797}[options.split]
    return DataInfo(count, 1, tuple("0123456789"))


def number_of_bits(instance: object, attribute: object, value: int) -> None:
    """attrs validator: 0, or as many bits as pixels have at most."""
    if not 0 <= value <= 32:
        raise ValueError(f"must be between 0 and 32, got {value}")


@attrs.frozen
class ImageFiles:
    """PNG, JPEG, WebP, BMP, TIFF of one page and NumPy arrays (.npy): one image a file, in its own numbers, without alpha."""

    bits: int = option(
        0,
        "bits that the numbers have, where fewer than their type: 12 means 0..4095; 0: as the type",
        check=number_of_bits,
    )
    axes: Literal["HWC", "CHW"] = option("HWC", "of .npy arrays of three dimensions: where their channels stand")


@attrs.frozen
class Mix:
    """Several data sets as one, each drawn from with a weight of its own."""

    sources: dict[str, Chosen] = slots("dataset", "the data sets, by a label of yours")
    weights: dict[str, float] = option(
        {},
        "share of the images that are drawn from each, in proportion; left out: as it has images",
        check=positive_values,
    )


def inspected(options: Mix) -> tuple[DataInfo, list[DataInfo]]:
    """What the mixture holds, and each of its sources. Raises DataError naming the source at fault."""
    infos = []
    for label, chosen in options.sources.items():
        try:
            infos.append(chosen.component.inspect(chosen.options))
        except DataError as error:
            raise DataError(str(error), f"sources.{label}.{error.key}" if error.key else f"sources.{label}") from None
    if not infos:
        raise DataError("names no data set; add [data.sources.NAME] tables", "sources")
    if unknown := sorted(set(options.weights) - set(options.sources)):
        raise DataError(f'"{unknown[0]}" is none of the sources {", ".join(options.sources)}', "weights")
    named = all(info.names for info in infos)
    names = tuple(dict.fromkeys(name for info in infos for name in info.names)) if named else ()
    if not names and len({info.channels for info in infos}) > 1:
        found = ", ".join(f"{label} {info.channels}" for label, info in zip(options.sources, infos))
        raise DataError(
            f"images of different numbers of channels ({found}), which have no names to tell them apart", "sources"
        )
    if len({info.sampled.units if info.sampled else "" for info in infos}) > 1:
        found = ", ".join(
            f"{label} {(i.sampled and i.sampled.units) or 'none'}" for label, i in zip(options.sources, infos)
        )
        raise DataError(f"numbers of different units ({found}); one intensity cannot serve them", "sources")
    numbers = [tuple(names.index(name) for name in info.names) or tuple(range(info.channels)) for info in infos]
    weights = [options.weights.get(label, info.count) for label, info in zip(options.sources, infos)]
    kinds = {info.label_kind for info in infos}
    labelled = all(info.labelled for info in infos) and len(kinds) == 1
    return DataInfo(
        sum(info.count for info in infos), len(names) or infos[0].channels,
        tuple(sorted({name for info in infos for name in info.classes})) if labelled else (),
        tuple(f"{label}: {note}" for label, info in zip(options.sources, infos) for note in info.notes),
        "".join(info.digest for info in infos), unreadable=tuple(fault for info in infos for fault in info.unreadable),
        sampled=joined([info.sampled for info in infos if info.sampled]), names=names, regions=any(info.regions for info in infos),
        boxes_alone=all(info.boxes_alone for info in infos if info.regions) and any(info.regions for info in infos),
        marked=tuple(dict.fromkeys(name for info in infos for name in info.marked)),
        label_kind=kinds.pop() if labelled else "class",
        parts=tuple(
            Part(i.count, w, n, f"sources.{label}", i.sampled) for label, i, w, n in zip(options.sources, infos, weights, numbers)
        ),
    ), infos  # fmt: skip


def joined(found: list[Sampled]) -> Sampled | None:
    """What images of several sources are like."""
    if not found:
        return None
    import numpy as np

    fulls = {sampled.full for sampled in found}
    low, high = min(sampled.low for sampled in found), max(sampled.high for sampled in found)
    kind = np.result_type(*(sampled.kind for sampled in found)).name
    return Sampled(kind, low, high, found[0].units, fulls.pop() if len(fulls) == 1 else None)


def inspect_mix(options: Mix) -> DataInfo:
    """All of the sources together."""
    return inspected(options)[0]


@attrs.frozen
class FullRange:
    """Pixels over their whole range, as their number type or their file says it; nothing is cut off."""

    range: list[float] = option(
        [], "numbers that become 0 and 1; none: those of the file, or of its number type", check=range_pair
    )


SPARSE = 8  # 16-bit images none of which uses an eighth of the range are taken for 12-bit ones or fewer


def crushed(seen: Sampled, low: float, high: float) -> list[tuple[str, str]]:
    """Why numbers do not go over the range that their files declare: CT in files of 16 bits uses a twentieth of it."""
    span = high - low
    if span <= 255 or (seen.high - seen.low) * SPARSE >= span:
        return []
    ends = ((value - low) / span for value in (seen.low, seen.high))
    return [
        (
            "range",
            f"pixels ({seen.kind}) from {seen.low:g} to {seen.high:g}{' ' + seen.units if seen.units else ''}, of the images that were "
            f"looked at, would be crushed into {'..'.join(f'{end:.2g}' for end in ends)} of what their files declare, {low:g} to {high:g}; "
            "give a narrower range, or take another intensity (window, percentiles)",
        )
    ]


def check_full_range(options: FullRange, draft: Draft) -> list[tuple[str, str]]:
    """Numbers without a meaning, and 16-bit ones that would be crushed into a corner, are refused."""
    seen = draft.data.sampled
    if seen is None or options.range:
        return []
    if seen.full:
        return crushed(seen, *seen.full)
    seen_as = f"pixels ({seen.kind}) from {seen.low:g} to {seen.high:g}{' ' + seen.units if seen.units else ''}"
    if seen.kind == "uint16" and seen.high < 65536 / SPARSE:
        bits = max(1, int(seen.high)).bit_length()
        return [
            (
                "range",
                f"{seen_as}, of the images that were looked at, would be crushed into 0..{seen.high / 65535:.2g}; set "
                f"range = [0, {2**bits - 1}] if they are {bits}-bit ones, or [0, 65535] if that is meant, or take another intensity",
            )
        ]
    if seen.kind not in ("uint8", "uint16", "bool") and not (seen.low >= 0 and seen.high <= 1):
        return [
            ("range", f"{seen_as} have no declared range; give it, or take another intensity (window, percentiles)")
        ]
    return []
