"""Schedules with their lengths in steps: pure functions, step in, value out."""

import math

import attrs

from dinomx_core.declare.values import Convention, Schedule, Shape


@attrs.frozen
class Curve:
    """A schedule resolved for a run of `total` steps. All lengths are steps.

    "warmup-inclusive" is the cosine scheduler of DINO and DINOv2: linspace(start, peak, warmup) with both ends, then the
    decay over n steps at i/n. "decay-inclusive" is DINOv3's: the warm-up at i/warmup, then the decay at i/(n - 1).
    """

    peak: float
    start: float
    end: float
    warmup: int
    decay: int
    shape: Shape
    convention: Convention
    hold: int
    total: int
    extra: float = 0.0

    def at(self, step: int) -> float:
        """The value at a step (0-based). Beyond the decay the value stays at `end`."""
        # All lengths are counted in held units, so that a curve held for an epoch is the reference's curve over epochs.
        unit = step // self.hold
        warmup, decay = -(-self.warmup // self.hold), -(-self.decay // self.hold)
        inclusive = self.convention == "warmup-inclusive"
        if unit < warmup:
            intervals = max(1, warmup - 1) if inclusive else warmup
            return self.start + (self.peak - self.start) * unit / intervals
        if self.shape == "constant":
            return self.peak
        if unit - warmup >= decay:
            return self.end
        if self.extra and self.shape == "cosine":
            weight = self._cut(unit - warmup, decay)
        else:
            share = (unit - warmup) / (decay if inclusive else max(1, decay - 1))
            weight = share if self.shape == "linear" else 0.5 - 0.5 * math.cos(math.pi * share)
        return self.peak + (self.end - self.peak) * weight

    def _cut(self, step: int, decay: int) -> float:
        """0 -> 1 over `decay` steps along a cosine of int((1 + extra) * decay) steps, both ends exact (DINOv3)."""
        whole = max(1, int((1 + self.extra) * decay) - 1)
        height = lambda i: (math.cos(math.pi * i / whole) + 1) / 2  # noqa: E731
        last = height(decay - 1)
        return 1 - (height(step) - last) / (1 - last) if decay > 1 else 1.0

    def __str__(self) -> str:
        if self.peak == self.end and self.warmup == 0:
            return f"{self.peak:g}"
        text = f"{self.start:g} -> {self.peak:g} over {self.warmup} steps" if self.warmup else f"{self.peak:g}"
        if self.shape != "constant" and self.end != self.peak:
            text += f", {self.shape} to {self.end:g} over {self.decay} steps"
        return text + (f", changing every {self.hold} steps" if self.hold > 1 else "")


def resolve(schedule: Schedule, total: int, steps_per_pass: float, scale: float = 1.0) -> Curve:
    """Lengths into steps; `scale` multiplies the peak, and the end too where none was given."""
    warmup = schedule.warmup.steps(total, steps_per_pass)
    decay = schedule.decay.steps(total, steps_per_pass) if schedule.decay else max(0, total - warmup)
    peak = schedule.peak * scale
    constant = schedule.shape == "constant" and warmup == 0
    end = peak if schedule.end is None or constant else schedule.end
    hold = max(1, schedule.hold.steps(total, steps_per_pass))
    return Curve(
        peak, schedule.start, end, warmup, decay, schedule.shape, schedule.convention, hold, total, schedule.extra
    )
