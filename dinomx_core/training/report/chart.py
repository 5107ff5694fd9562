"""A figure over steps as SVG, with its own scale and the run's verdicts."""

import math
from collections.abc import Iterator, Sequence
from html import escape

from dinomx_core.training.report.curves import Curve

WIDE, TALL = 460, 190  # of the whole drawing
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 18, 24  # around the curve
DECADES = 1.3  # of positive numbers, from which on a scale is logarithmic
FALLS_OVER = (
    "kl",
    "lr",
    "gradient_norm",
    "seconds",
    "data_seconds",
)  # ends of names of figures that may go over decades
UNITS = {"seconds": " s", "data_seconds": " s", "images_per_second": " images/s", "kl": " nats"}
MARKS = 5  # numbers beside an axis, about


class Scale:
    """From numbers to places."""

    def __init__(self, low: float, high: float, start: float, end: float, log: bool = False):
        self.log, self.start, self.end = log, start, end
        self.low, self.high = (math.log10(low), math.log10(high)) if log else (low, high)

    def __call__(self, value: float) -> float:
        value = math.log10(value) if self.log else value
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)

    def marks(self, whole: bool = False) -> list[float]:
        """Round numbers along it."""
        if self.log:
            decades = range(math.ceil(self.low - 1e-9), math.floor(self.high + 1e-9) + 1)
            return [10.0**power for power in decades][:: max(1, -(-len(decades) // MARKS))]
        step = round_step((self.high - self.low) / MARKS, whole)
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def round_step(least: float, whole: bool) -> float:
    """The next number of the form 1, 2 or 5 times a power of 10."""
    power = 10.0 ** math.floor(math.log10(least))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * 0.999)
    return max(1.0, step) if whole else step


def scale_of(values: Sequence[float], logarithmic: bool) -> Scale:
    """From bottom to top, with a little room around the numbers; logarithmic where that is asked for, and they go over decades."""
    low, high = min(values), max(values)
    if logarithmic and low > 0 and math.log10(high / low) >= DECADES:
        return Scale(low / 1.2, high * 1.2, TALL - BOTTOM, TOP, True)
    room = (high - low) * 0.06 or abs(high) * 0.05 or 0.5
    return Scale(0.0 if 0 <= low < room else low - room, high + room, TALL - BOTTOM, TOP)


def number(value: float) -> str:
    """A number beside an axis, or in a tile: 0.0005 -> "5e-4", 12000 -> "12k"."""
    size = abs(value)
    if value and (size < 1e-3 or size >= 1e9):
        mantissa, _, power = f"{value:.2e}".partition("e")
        return f"{float(mantissa):g}e{int(power)}"
    for limit, letter in ((1e6, "M"), (1e4, "k")):
        if size >= limit:
            return f"{value / (1e6 if letter == 'M' else 1e3):.4g}{letter}"
    return f"{value:.4g}"


def chart(
    kind: str,
    name: str,
    curve: Curve,
    steps: int,
    verdicts: Sequence[tuple[int, int]],
    *,
    dots: bool = False,
    exact: bool = False,
    log: bool = False,
) -> str:
    """A figure of a kind of row from step 0 to `steps`. verdicts: steps with the numbers that mark them.
    dots: few numbers, each of them shown. exact: nothing to smooth."""
    raw = list(curve.raw())
    across = Scale(0, max(1, steps), LEFT, WIDE - RIGHT)
    down = scale_of([value for _, value in raw], log)
    line = list(curve.means() if dots or exact else curve.smoothed())
    parts = [*axes(across, down), *marks(verdicts, across)]
    if not (dots or exact) and len(raw) > 1:
        parts.append(f'<path class="raw" d="{path(raw, across, down)}"/>')
    parts.append(f'<path class="line" d="{path(line, across, down)}"/>')
    if dots or len(line) == 1:
        parts += (f'<circle cx="{across(step):.1f}" cy="{down(value):.1f}" r="2.6"/>' for step, value in line)
    parts.append(f'<line class="at" y1="{TOP}" y2="{TALL - BOTTOM}" x1="-9" x2="-9"/>')
    last, value = curve.last
    unit = UNITS.get(name.rpartition("/")[2], "")
    told = f"{name}: {value:.6g}{unit} at step {last}"
    return (
        f'<figure class="chart" data-figure="{escape(kind)}/{escape(name)}"><figcaption><b>{escape(name)}</b>'
        f'<span class="now" data-unit="{unit}">{value:.5g}{unit}<i> at step {last}</i></span></figcaption>'
        f'<svg viewBox="0 0 {WIDE} {TALL}" role="img" aria-label="{escape(told)}">{"".join(parts)}</svg></figure>'
    )


def axes(across: Scale, down: Scale) -> Iterator[str]:
    """Lines and numbers; those of the steps keep apart from the end."""
    for value in down.marks():
        y = down(value)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDE - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{number(value)}</text>'
    for value in across.marks(whole=True):
        x = across(value)
        anchor = "end" if x > WIDE - RIGHT - 12 else "middle"
        yield f'<text x="{x:.1f}" y="{TALL - 8}" text-anchor="{anchor}">{number(value)}</text>'
    yield f'<text x="{LEFT - 16}" y="{TALL - 8}" text-anchor="end">step</text>'
    yield f'<line class="axis" x1="{LEFT}" x2="{WIDE - RIGHT}" y1="{TALL - BOTTOM}" y2="{TALL - BOTTOM}"/>'


def marks(verdicts: Sequence[tuple[int, int]], across: Scale) -> Iterator[str]:
    """A line at each verdict's step with its number above; numbers that would touch move aside."""
    free = 0.0
    for step, which in sorted(verdicts):
        x = across(step)
        label = max(x, free)
        free = label + 14
        yield f'<line class="verdict" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{TALL - BOTTOM}"/>'
        yield f'<text class="verdict" x="{min(label, WIDE - 6):.1f}" y="{TOP - 5}" text-anchor="middle">{which}</text>'


def path(points: Sequence[tuple[float, float]], across: Scale, down: Scale) -> str:
    """Points as an SVG path."""
    return "M" + "L".join(f"{across(step):.1f} {down(value):.1f}" for step, value in points)
