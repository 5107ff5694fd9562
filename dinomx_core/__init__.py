"""DINO-MX: self-supervised training of vision transformers, every algorithm a plugin.

What a plugin's declarations need is importable from here and free of torch; `plan`, `run` and `load` do what the commands do.
"""

from typing import TYPE_CHECKING, Any

from dinomx_core.declare.components import (
    Augmentation,
    Backbone,
    Command,
    Dataset,
    Evaluator,
    Head,
    Intensity,
    Loss,
    Masking,
    Parallelism,
    Placement,
    Reader,
    Recipe,
    Strategy,
    Target,
    Tracker,
)
from dinomx_core.declare.facts import (
    BackboneShape,
    DataInfo,
    Draft,
    Frozen,
    HeadShape,
    HowMasked,
    Parameters,
    Part,
    Preprocessing,
    Request,
    View,
)
from dinomx_core.declare.hooks import hookimpl
from dinomx_core.declare.processes import Division, Load, Processes
from dinomx_core.declare.reading import Index, Plane, PlaneReader, Sampled, Stack
from dinomx_core.declare.values import (
    Chosen,
    Length,
    Schedule,
    below_one,
    fraction,
    not_empty,
    not_negative,
    option,
    ordered_pair,
    positive,
    schedule_of,
    share_range,
    slot,
)
from dinomx_core.errors import (
    ConfigError,
    DataError,
    DinomxDeprecation,
    DinomxError,
    OtherChannels,
    OtherFamily,
    PluginError,
    Stopped,
    TrainingError,
)

if TYPE_CHECKING:
    from dinomx_core.api import load, plan, run

__version__ = "0.1.0"

__all__ = [
    "Augmentation",
    "Backbone",
    "BackboneShape",
    "Chosen",
    "Command",
    "ConfigError",
    "DataError",
    "DataInfo",
    "Dataset",
    "DinomxDeprecation",
    "DinomxError",
    "Division",
    "Draft",
    "Evaluator",
    "Frozen",
    "Head",
    "HeadShape",
    "HowMasked",
    "Index",
    "Intensity",
    "Length",
    "Load",
    "Loss",
    "Masking",
    "OtherChannels",
    "OtherFamily",
    "Parallelism",
    "Parameters",
    "Part",
    "Placement",
    "Plane",
    "PlaneReader",
    "PluginError",
    "Preprocessing",
    "Processes",
    "Reader",
    "Recipe",
    "Request",
    "Sampled",
    "Schedule",
    "Stack",
    "Stopped",
    "Strategy",
    "Target",
    "Tracker",
    "TrainingError",
    "View",
    "below_one",
    "fraction",
    "hookimpl",
    "load",
    "not_empty",
    "not_negative",
    "option",
    "ordered_pair",
    "plan",
    "positive",
    "run",
    "schedule_of",
    "share_range",
    "slot",
]


def __getattr__(name: str) -> Any:
    """`plan`, `run` and `load` are imported when they are first used: declarations and `dinomx --help` need none of them."""
    if name in ("load", "plan", "run"):
        from dinomx_core import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
