"""The contracts."""

import pytest

from dinomx_core.testing import conformance
from tests.wheels import ROOT


@pytest.fixture(autouse=True)
def from_the_top(monkeypatch):
    """The example names a file of the checkout."""
    monkeypatch.chdir(ROOT)


test_conforms = conformance("dinomx-label-guided")
