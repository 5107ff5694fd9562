"""Fixtures of tests/ for the plugins' tests too."""

pytest_plugins = ["tests.fixtures", "tests.distributions", "tests.wheels", "pytester"]
collect_ignore = ["plugins/_template"]  # its tests are those of the packages that are written from it
