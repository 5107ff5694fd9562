"""What the processes of tests do, and one process alone."""

import time
from importlib import import_module

from dinomx_core import api
from dinomx_core.progress import Silent
from dinomx_core.running import run_here
from dinomx_core.testing import toy as planes
from dinomx_core.training.build import build
from tests.fixtures import stream_of


def train(config, count, *names):
    """Train freshly built parts for some steps: the rows, the student's and teacher's whole weights, and how many numbers of the
    student and its moments this process holds. names: modules of further declarations."""
    from dinomx_core.training.loop import train_step

    parts = build(api.plan(config, plugins=[planes, *map(import_module, names)]))
    stream = stream_of(parts)
    rows = [train_step(parts, stream, step)[0] for step in range(count)]
    part = parts.parallelism.part
    weights = {
        f"{name}.{key}": parts.parallelism.whole(tensor).cpu().clone()
        for name, module in (("student", parts.student), ("teacher", parts.teacher.network))
        for key, tensor in module.state_dict().items()
    }
    moments = [value for state in parts.optimizer.adamw.state.values() for value in state.values()]
    held = {
        "student": sum(part(p).tensor.numel() for p in parts.student.parameters()),
        "teacher": sum(part(p).tensor.numel() for p in parts.teacher.network.parameters()),
        "moments": sum(part(m).tensor.numel() for m in moments if m.ndim),
    }
    return {"rows": rows, "weights": weights, "held": held}


def run(config, resume=False, overwrite=False):
    """A whole run. Returns its evaluations' figures."""
    return run_here(api.plans(config, plugins=[planes]), resume, overwrite, Silent()).figures


def timed(config, count, skip):
    """Seconds of each step after the first `skip`."""
    from dinomx_core.training.loop import train_step

    parts = build(api.plan(config, plugins=[planes]))
    stream, seconds = stream_of(parts), []
    for step in range(count):
        began = time.perf_counter()
        train_step(parts, stream, step)
        seconds.append(time.perf_counter() - began)
    return seconds[skip:]


def run_without_drawing(config):
    """A whole run in whose first process nothing can be drawn."""
    from dinomx_core.training.report.pictures import Pictures

    kept = Pictures.prepare
    Pictures.prepare = lambda self, step: 1 / 0
    try:
        return run(config, overwrite=True)
    finally:
        Pictures.prepare = kept
