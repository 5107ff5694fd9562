"""Backbones, heads and targets with a fault; "" has none."""

import attrs

from dinomx_core import Backbone, Head, HeadShape, Target, hookimpl, option
from dinomx_core.builtin.families import Hf, hf_shape
from dinomx_core.testing.toy import CONFIG

TINY = {name: value for name, value in CONFIG["backbone"].items() if name != "name"}


@attrs.frozen
class Faulty:
    """One thing is wrong."""

    fault: str = option("", "which")


def shape(options, channels, image_size):
    made = hf_shape(Hf(**TINY), channels, image_size)
    return attrs.evolve(made, parameters=made.parameters + (options.fault == "parameters"))


def head_shape(options, width):
    return HeadShape(8 + (options.fault == "sizes"), 8 * width + 8)


@hookimpl
def dinomx_backbones():
    yield Backbone("faulty", Faulty, "tests.broken_plugins.network_parts:build", shape=shape)


@hookimpl
def dinomx_heads():
    yield Head("faulty", Faulty, "tests.broken_plugins.network_parts:FaultyHead", shape=head_shape)


@hookimpl
def dinomx_targets():
    yield Target("faulty", Faulty, "tests.broken_plugins.network_parts:FaultyTarget")
