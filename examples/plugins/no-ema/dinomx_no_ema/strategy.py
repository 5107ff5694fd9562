"""The student as its own teacher."""

from collections.abc import Callable

from dinomx_core.training.backbone import Backbone
from dinomx_core.training.contracts import Strategy, Teacher
from dinomx_core.training.network import Network
from dinomx_no_ema import plugin


class NoEmaStrategy(Strategy):
    """What requests of the teacher get is what the student computes, without gradients."""

    def __init__(self, options: "plugin.NoEma"):
        self.options = options

    def teacher(self, student: Network, make: Callable[[Backbone], Network]) -> Teacher:
        """The student itself, so there is nothing to copy and nothing that follows."""
        return Teacher(student, [])
