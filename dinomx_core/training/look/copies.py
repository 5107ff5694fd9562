"""Images whose pixels are the same: within a data set, across its groups and classes, and between data sets."""

from collections.abc import Mapping
from typing import Any

import attrs

from dinomx_core.builtin.pictures import evenly
from dinomx_core.declare.values import Chosen
from dinomx_core.errors import UNREADABLE
from dinomx_core.training.construct import construct
from dinomx_core.training.look.measuring import SHOWN, Measured
from dinomx_core.training.look.names import Naming
from dinomx_core.training.look.reading import ahead, see

OTHER_PART = {"train": "test", "test": "train"}


def within(measured: Measured, naming: Naming) -> dict[str, Any]:
    """Copies among the measured images: in how many sets, of which some are of several groups or classes."""
    found = [copies for copies in measured.digests.values() if len(copies) > 1]
    across_groups = [c for c in found if len({group for _, _, _, group in c}) > 1]
    across_classes = [c for c in found if len({label for _, _, label, _ in c}) > 1]
    return {
        "images": sum(len(copies) - 1 for copies in found),
        "sets": len(found),
        "across_groups": len(across_groups),
        "across_classes": len(across_classes),
        "named": [[naming(id_) for _, id_, _, _ in copies] for copies in found[:SHOWN]],
    }


def beside(data: Chosen, others: Mapping[str, Chosen]) -> dict[str, Chosen]:
    """The data sets that should have no image in common with the training's: the other part of its split, and what is classified."""
    found = {name: chosen for name, chosen in others.items() if name.endswith(".query")}
    if (part := getattr(data.options, "part", "all")) in OTHER_PART:
        other = attrs.evolve(data, options=attrs.evolve(data.options, part=OTHER_PART[part]))
        if not any(repr(chosen.options) == repr(other.options) for chosen in found.values()):
            found[f"the {OTHER_PART[part]} part"] = other
    return found


def between(measured: Measured, data: Chosen, others: Mapping[str, Chosen], images: int) -> dict[str, int]:
    """How many of the images measured of each other data set are among those measured of the training's, by its name."""
    result = {}
    for name, chosen in beside(data, others).items():
        try:
            other = construct(chosen)
        except UNREADABLE:
            continue  # no such part; or the plan tells it
        numbers = range(len(other)) if not images else evenly(len(other), images)
        digests = [seen.digest for seen in ahead(lambda index, other=other: see(other, None, index), numbers)]  # type: ignore[misc]
        result[name] = sum(digest in measured.digests for digest in digests if digest)
    return result
