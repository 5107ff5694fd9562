"""A report as text."""

from collections.abc import Iterator
from typing import Any

LISTED = 6  # channels, sizes, classes in one line


def figure(value: float) -> str:
    """A number of five digits."""
    return f"{value:.5g}"


def ends(spread: dict[str, int]) -> str:
    """Smallest and largest, or one number where they are the same."""
    return f"{spread['min']} to {spread['max']}" if spread["min"] < spread["max"] else str(spread["min"])


def listed(values: list[str]) -> str:
    """The first of some texts, and how many more there are."""
    more = f" and {len(values) - LISTED} more" if len(values) > LISTED else ""
    return ", ".join(values[:LISTED]) + more


def paste(suggested: dict[str, Any]) -> Iterator[str]:
    """Lines of TOML."""
    for name in ("mean", "std"):
        yield f"{name} = [{', '.join(figure(value) for value in suggested[name])}]"


def facts(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What is told of a data set, each fact with its name."""
    faults = report["unreadable"]["count"]
    yield (
        "images",
        f"{report['count']}, of which {report['measured']} were measured" + (f"; {faults} unreadable" * bool(faults)),
    )
    sizes = report["sizes"]
    for axis in ("height", "width"):
        yield axis, ends(sizes[axis]) + f" px, median {sizes[axis]['median']}"
    yield (
        "sizes",
        listed([f"{size['width']} x {size['height']} ({size['images']})" for size in sizes["commonest"]])
        + " width x height (images)",
    )
    names = report["channels"]["names"]
    yield "channels", str(report["channels"]["count"]) + (f": {listed(names)}" if names else "")
    numbers = report["numbers"]
    units = listed([f"{units} ({count})" for units, count in numbers["units"].items()])
    kind = numbers["in_files"] or listed(list(numbers["as_read"]))
    full = "; ".join(f"{figure(low)} to {figure(high)}" for low, high in numbers["declared_range"][:3])
    yield "numbers", f"{kind}; units {units}" + (f"; the files declare a range of {full}" if full else "")
    for when in ("before", "after"):
        for channel in report[when][:LISTED]:
            yield (
                f"{when} [{channel['name']}]",
                f"{figure(channel['min'])} to {figure(channel['max'])}, middle 98% {figure(channel['p1'])} to {figure(channel['p99'])}, "
                f"mean {figure(channel['mean'])}, std {figure(channel['std'])}",
            )
    if report["cut"]:
        below, above = report["cut"]["below"], report["cut"]["above"]
        yield "cut off", f"{below:.2%} of the pixels below, {above:.2%} above" if below or above else "no pixel"
    if report["classes"]:
        yield "classes", listed([f"{entry['name']} ({entry['images']})" for entry in report["classes"]])
    if report["groups"]["count"]:
        groups = report["groups"]
        yield "groups", f"{groups['count']}, each of {ends(groups)} measured images"
    copies = report["duplicates"]
    yield "copies", f"{copies['images']} images are pixel for pixel as another that was measured"
    yield "speed", f"{figure(report['images_per_second'])} images a second, read and measured by 4 threads"


def lines(report: dict[str, Any]) -> Iterator[str]:
    """The report for a terminal."""
    for name, text in facts(report):
        yield f"{name:<12} {text}"
    if report["suggested"]:
        yield "for [augmentation], after the intensity:"
        yield from (f"  {line}" for line in paste(report["suggested"]))
    if found := report.get("statistics"):
        yield f"for [intensity] of z-score, from all {found['count']} images (groups: {found['groups']}), in {found['file']}:"
        yield from (f"  {line}" for line in paste(found))
    for fault in report["unreadable"]["named"]:
        yield f"left out     {fault}"
    yield f"report       {report['page']}"
