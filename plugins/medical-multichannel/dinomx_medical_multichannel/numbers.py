"""Options of intensities: what the numbers of an image mean. No torch."""

from typing import Literal

import attrs

from dinomx_core import Draft, option, positive

# Centre and width in HU, as radiologists set them.
WINDOWS = {
    "lung": (-600.0, 1500.0), "mediastinum": (50.0, 350.0), "soft-tissue": (40.0, 400.0), "bone": (500.0, 2000.0),
    "brain": (40.0, 80.0), "subdural": (75.0, 215.0), "stroke": (40.0, 40.0), "liver": (60.0, 160.0),
    "angiography": (300.0, 600.0), "temporal-bone": (600.0, 2800.0),
}  # fmt: skip
HU, RGB = "HU", 3
Problems = list[tuple[str, str]]


def known_windows(instance: object, attribute: object, value: list[str]) -> None:
    """attrs validator: names of windows."""
    if unknown := [name for name in value if name not in WINDOWS]:
        raise ValueError(f'"{unknown[0]}" is no window; known: {", ".join(WINDOWS)}; others: give ranges')


def ranges_of(instance: object, attribute: object, value: list[list[float]]) -> None:
    """attrs validator: [low, high] pairs."""
    for pair in value:
        if len(pair) != 2 or not pair[0] < pair[1]:
            raise ValueError(f"must be [low, high] pairs with low < high, got {pair}")


def percent_pair(instance: object, attribute: object, value: list[float]) -> None:
    """attrs validator: two shares in per cent."""
    if len(value) != 2 or not 0 <= value[0] < value[1] <= 100:
        raise ValueError(f"must be [low, high] with 0 <= low < high <= 100, got {value}")


@attrs.frozen(kw_only=True)
class Declared:
    """What files of numbers without units leave out: number * slope + intercept, in these units."""

    slope: float = option(1.0, "factor of the files' numbers", check=positive)
    intercept: float = option(0.0, "added to them: -32768 for HU that are stored as HU + 32768")
    units: str = option("", 'units of the result, where the files do not say them: "HU"')


@attrs.frozen
class Window(Declared):
    """Windows of a range of numbers: what is below one is black, above it white. Each window makes a channel of its own."""

    windows: list[str] = option([], f"by name, in HU: {', '.join(WINDOWS)}", check=known_windows)
    ranges: list[list[float]] = option([], "further ones as [low, high], in the units of the numbers", check=ranges_of)

    @property
    def bounds(self) -> list[tuple[float, float]]:
        """(low, high) of each window."""
        named = [(centre - width / 2, centre + width / 2) for centre, width in map(WINDOWS.__getitem__, self.windows)]
        return [*named, *((low, high) for low, high in self.ranges)]


@attrs.frozen
class Percentiles(Declared):
    """Each image's own percentiles become 0 and 1; what lies beyond them is cut off there."""

    percentiles: list[float] = option([0.5, 99.5], "in per cent of the pixels", check=percent_pair)
    by_channel: bool = option(True, "each channel's own")
    above: float | None = option(None, "count pixels above this number only, such as 0 for a background of zeros")


@attrs.frozen
class ZScore(Declared):
    """Numbers less their mean, over their standard deviation; nothing is cut off."""

    of: Literal["image", "given", "group"] = option(
        "image",
        "whose statistics: each image's own, the given ones, or those of the image's group (a plate, a scanner)",
    )
    mean: list[float] = option([], "given: one for all channels or one a channel")
    std: list[float] = option([], "given, likewise", check=positive)
    statistics: str = option("", "group: JSON file of groups, as `dinomx data CONFIG --statistics FILE` writes it")
    by_channel: bool = option(True, "image: each channel's own")
    above: float | None = option(
        None, "image: count pixels above this number only, such as 0 for a background of zeros"
    )


@attrs.frozen
class Log(Declared):
    """log(1 + x / scale), so that dim structures show beside bright ones; 0 stays 0, `high` becomes 1."""

    high: float = option(doc="number that becomes 1; none may be above it", check=positive)
    scale: float = option(1.0, "numbers much below it stay linear", check=positive)


def window_channels(options: Window, channels: int) -> int:
    """Each window makes as many."""
    return channels * max(1, len(options.bounds))


def check_declared(options: Declared, draft: Draft) -> Problems:
    """Files that say their units need none declared."""
    seen = draft.data.sampled
    declared = bool(options.units) or (options.slope, options.intercept) != (1.0, 0.0)
    if seen and seen.units and declared:
        return [
            (
                "units",
                f"the files say themselves that their numbers are {seen.units}; leave out units, slope and intercept",
            )
        ]
    return []


def check_window(options: Window, draft: Draft) -> Problems:
    """Named windows are in HU, and some numbers must lie in a window."""
    problems = check_declared(options, draft)
    if not options.bounds:
        problems.append(("windows", f"name some ({', '.join(WINDOWS)}), or give ranges"))
    if len(options.bounds) > 1 and draft.data.channels == RGB * len(options.bounds):
        made = draft.data.channels
        problems.append(
            (
                "windows",
                f"{len(options.bounds)} windows of {RGB} channels each make {made}; set data.channels = 1 for grey images",
            )
        )
    seen = draft.data.sampled
    units = options.units or (seen.units if seen else "")
    if options.windows and units != HU:
        what = f"are {units}" if units else "have no units that the files tell"
        problems.append(
            (
                "windows",
                f'are in HU, but the numbers {what}; say units = "HU" (with slope and intercept where they are shifted) if they are, '
                "or give ranges in the numbers' own units",
            )
        )
    if seen and not problems:
        low, high = (value * options.slope + options.intercept for value in (seen.low, seen.high))
        for bounds in options.bounds:
            if high <= bounds[0] or low >= bounds[1]:
                key = "windows" if options.windows else "ranges"
                problems.append(
                    (key, f"{bounds[0]:g} to {bounds[1]:g} leaves nothing to see of numbers from {low:g} to {high:g}")
                )
    return problems


def check_zscore(options: ZScore, draft: Draft) -> Problems:
    """Statistics are there where they are wanted, one for all channels or one a channel."""
    problems = check_declared(options, draft)
    channels = draft.data.channels
    for name in ("mean", "std"):
        values = getattr(options, name)
        if options.of == "given" and len(values) not in (1, channels):
            wanted = "one number" if channels == 1 else f"1 or {channels} numbers"
            problems.append((name, f'of = "given" needs {wanted}, got {len(values)}'))
        elif options.of != "given" and values:
            problems.append((name, f'is for of = "given", not "{options.of}"'))
    if (options.of == "group") != bool(options.statistics):
        told = "needs a file of statistics" if options.of == "group" else "has no use for a file of statistics"
        problems.append(("statistics", f'of = "{options.of}" {told}'))
    return problems


def check_log(options: Log, draft: Draft) -> Problems:
    """Numbers lie within 0 and `high`."""
    problems, seen = check_declared(options, draft), draft.data.sampled
    if seen:
        low, high = (value * options.slope + options.intercept for value in (seen.low, seen.high))
        if low < 0 or high > options.high:
            problems.append(
                ("high", f"{options.high:g}, but the numbers go from {low:g} to {high:g}; it takes 0 to high")
            )
    return problems
