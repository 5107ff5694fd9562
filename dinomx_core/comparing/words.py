"""A comparison as text: a line a group."""

from collections.abc import Iterator, Sequence
from typing import Any

from dinomx_core.comparing.groups import Comparison, Figure, Group
from dinomx_core.planning.grid import short_names
from dinomx_core.planning.show import amount

WORDY = 3  # keys that a group is called by; of more, by its number alone


def cells(found: Comparison) -> tuple[list[str], list[list[str]]]:
    """Names of columns, and a row a group."""
    told = len(found.groups) > 1 and 0 < len(found.by) <= WORDY
    names = short_names(found.by)
    heads = ["group", *(names if told else []), "n", *found.figures, "images", "hours", "processes", "tried"]
    rows = []
    for number, group in enumerate(found.groups, 1):
        keys = [as_text(value) for value in group.keys.values()] if told else []
        figures = [figure_text(group.figures[name], len(group.runs)) for name in found.figures]
        rows.append([str(number), *keys, str(len(group.runs)), *figures, *cost(group)])
    return heads, rows


def cost(group: Group) -> list[str]:
    """Images, hours, processes and tuning budget of a group."""
    least, most = (amount(number) for number in group.images)
    budget = group.budget
    tried = f"{budget.combinations} ({count(budget.runs, 'run')})" if budget else "-"
    return [least if least == most else f"{least}-{most}", f"{group.hours:.3g}", ", ".join(group.places), tried]


def count(number: int, what: str) -> str:
    """1 -> "1 run", 2 -> "2 runs"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def figure_text(figure: Figure | None, runs: int) -> str:
    """Mean and spread, with the number of runs where it is not of all."""
    if figure is None:
        return "-"
    spread = "" if figure.spread is None else f" ± {figure.spread:.4f}"
    return f"{figure.mean:.4f}{spread}" + (f" ({len(figure.values)} of {runs})" if len(figure.values) < runs else "")


def as_text(value: Any) -> str:
    """A value, "-" where there is none."""
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def about(found: Comparison) -> str:
    """What stands in the table."""
    best = f"at each run's best {found.figures[0]}" if found.at == "best" and found.figures else "at the end"
    return f"mean ± sample standard deviation over runs, {best}; images and hours of a run"


def aligned(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table of plain text."""
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    for row in (heads, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()


def differences(found: Comparison) -> Iterator[str]:
    """A line a key in which groups differ: its values, with the groups that have each."""
    width = max(map(len, found.differing), default=0)
    for key, values in found.differing.items():
        groups: dict[str, list[str]] = {}
        for number, value in enumerate(values, 1):
            groups.setdefault(as_text(value), []).append(str(number))
        told = "  ".join(f"{value} ({', '.join(numbers)})" for value, numbers in groups.items())
        yield f"  {key.ljust(width)}  {told}"
