"""Mean and deviation of a data set's numbers, and of each group's, as the intensity `z-score` takes them."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from dinomx_core.errors import DataError
from dinomx_core.training.contracts import Dataset
from dinomx_core.training.look.figures import Moments
from dinomx_core.training.look.measuring import Progress
from dinomx_core.training.look.reading import Seen, ahead, see


def statistics_of(data: Dataset, channels: int, options: Any, progress: Progress) -> dict[str, Any]:
    """{"count", "mean", "std", "groups"} of all images that can be read, in the units that an intensity's options declare with `slope` and
    `intercept`. Raises DataError where none can be read."""
    slope, intercept = getattr(options, "slope", 1.0), getattr(options, "intercept", 0.0)
    whole, groups, fault = Moments(channels), dict[str, Moments](), ""

    def work(index: int) -> Seen:
        return see(data, None, index)

    for done, seen in enumerate(ahead(work, range(len(data))), 1):
        progress(done, len(data))
        if seen.item is None or seen.before is None:
            fault = fault or seen.fault
            continue
        own = range(len(seen.before)) if seen.item.channels is None else seen.item.channels
        values = seen.before.astype(np.float64) * slope + intercept
        whole.add(values, own)
        if seen.item.group:
            groups.setdefault(seen.item.group, Moments(channels)).add(values, own)
    if not whole.images:
        raise DataError(f"none of {len(data)} images can be read; the first: {fault}")
    return {**whole.to_json(), "groups": {name: groups[name].to_json() for name in sorted(groups)}}


def write(file: Path, statistics: dict[str, Any]) -> None:
    """Write them as JSON. Raises DataError where that cannot be."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(statistics, indent=1) + "\n", "utf-8")
    except OSError as error:
        raise DataError(f"{file}: cannot be written: {error.strerror or error}") from None
