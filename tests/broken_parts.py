"""torch part of `broken_strategy`."""

import os
import signal
import time

import torch

from dinomx_core.errors import DataError
from dinomx_core.training.contracts import Strategy


class BrokenStrategy(Strategy):
    """See the options."""

    def __init__(self, options):
        self.options = options

    def before_step(self, student, step, lengths):
        o = self.options
        if (
            step != o.step
            or int(os.environ.get("RANK", 0)) != o.rank
            or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
        ):
            return
        if o.how == "bug":
            raise ValueError("nobody foresaw this")
        if o.how == "data":
            raise DataError("disk: cannot be read; mend it")
        if o.how == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if o.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)
