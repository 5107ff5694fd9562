"""What obeys the plan. torch lives here, in `builtin` and in plugins."""

import os

# torch's CPU threads spin while they wait for each other. Where something else wants a core (a loader's worker, another
# program) that costs up to ten times the step: 6.7 s against 0.64 s was measured on two cores with one of them taken.
# OpenMP reads this when torch is first imported, so it stands before any import of it here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
