"""How much of an image an intensity cuts off at 0 and 1, found from what it made of the numbers."""

import numpy as np

SLACK = 1e-4  # of the window's width


def cut_off(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """Shares of the pixels that lie below what became 0 and above what became 1. before (C, N); after (K * C, N), all channels of one
    window after another.

    Between 0 and 1 an intensity that cuts is a straight line, which says which number is 0 and which is 1. Where no pixel lies between,
    those are counted that another number shares its end with.
    """
    below = above = 0.0
    for number, row in enumerate(after):
        low, high = _of_channel(before[number % len(before)].astype(np.float64), row.astype(np.float64))
        below, above = below + low / len(after), above + high / len(after)
    return below, above


def _of_channel(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    black, white = after <= 0, after >= 1
    inside = np.flatnonzero(~black & ~white)
    first, last = (inside[before[inside].argmin()], inside[before[inside].argmax()]) if inside.size else (0, 0)
    if before[last] <= before[first]:
        ends = (before[black].max(initial=-np.inf), before[white].min(initial=np.inf))
        slack = 0.0
    else:
        slope = (after[last] - after[first]) / (before[last] - before[first])
        if slope <= 0:
            return 0.0, 0.0
        ends = (before[first] - after[first] / slope, before[last] + (1 - after[last]) / slope)
        slack = SLACK * (ends[1] - ends[0])
    return float((black & (before < ends[0] - slack)).mean()), float((white & (before > ends[1] + slack)).mean())
