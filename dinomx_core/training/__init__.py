"""What obeys the plan. torch lives here, in `builtin` and in plugins."""

import os

from dinomx_core.planning.world import started

# torch's CPU threads spin for milliseconds while they wait for each other. Where something else wants a core (a loader's
# worker, another program) that costs several times the step: 1.9 s against 0.7 s was measured on two cores with one of them
# taken. Sleeping at once costs a third where nothing is in the way; a short spin does well in both. OpenMP reads this when
# torch is first imported, so it stands before any import of it here.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")

# One of several processes: torch's own remarks would be printed by each of them. It too reads this when it is imported.
if started(os.environ):
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
