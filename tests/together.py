"""What the processes of tests do, and one process alone."""

from dinomx_core import api
from dinomx_core.planning.plan import Env
from dinomx_core.progress import Silent
from dinomx_core.running import run_here
from dinomx_core.training.build import build
from tests.fixtures import stream_of


def train(config, count):
    """Train freshly built parts for some steps: the rows' losses, the student's and teacher's whole weights, and whether all
    processes have the same."""
    from dinomx_core.training.loop import train_step

    parts = build(api.plan(config, env=Env.here()))
    stream = stream_of(parts)
    rows = [train_step(parts, stream, step)[0] for step in range(count)]
    found = {}
    for name, module in (("student", parts.student), ("teacher", parts.teacher.network)):
        for key, tensor in module.state_dict().items():
            found[f"{name}.{key}"] = parts.parallelism.whole(tensor).cpu().clone()
    held = sum(parts.parallelism.part(p).tensor.numel() for p in parts.student.parameters())
    return {"rows": rows, "weights": found, "held": held}


def run(config, resume=False, overwrite=False):
    """A whole run. Returns its evaluations' figures."""
    return run_here(api.plans(config), resume, overwrite, Silent()).figures
