"""Fixtures of tests/ for the plugins' tests too."""

pytest_plugins = ["tests.fixtures", "tests.distributions", "tests.wheels"]
