"""The contracts."""

import tempfile
from functools import cache
from pathlib import Path

import pytest

from dinomx_core import api
from dinomx_core.testing import conformance
from tests.wheels import ROOT

PLACE = tempfile.TemporaryDirectory()


@cache
def teacher():
    """What `make quickstart` leaves, after fewer steps."""
    short = ["run.steps=2", "run.batch_size=8"]
    return str(api.run(ROOT / "examples/quickstart.toml", overrides=short, out=Path(PLACE.name) / "runs").folder)


@pytest.fixture(autouse=True)
def beside_the_teacher(monkeypatch):
    """The example names it from here."""
    teacher()
    monkeypatch.chdir(PLACE.name)


def options():
    """The strategy learns from the teacher's heads."""
    return {"strategy distill-heads": {"teacher": teacher()}}


test_conforms = conformance("dinomx-distill", options)
