"""Fixtures of tests/ for the plugins' tests too."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores: a thread each, in what they start, too
    os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = ["tests.fixtures", "tests.distributions", "tests.wheels", "pytester"]
collect_ignore = ["plugins/_template"]  # its tests are those of the packages that are written from it
