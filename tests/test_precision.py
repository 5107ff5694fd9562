"""What is said of number types that a machine is slow in."""

import pytest

from dinomx_core import api
from dinomx_core.planning.plan import Env
from dinomx_core.planning.precision import slow


@pytest.mark.parametrize(
    ("precision", "device", "bf16", "words"),
    [
        ("bf16", "cpu", False, "several times slower than float32; take float32"),
        ("bf16", "cpu", True, ""),
        ("bf16", "cpu", None, ""),
        ("bf16", "cuda", False, ""),
        ("fp16", "cpu", False, "fp16 is slow on most CPUs; take float32"),
        ("fp16", "cpu", True, "bf16 needs no loss scaling"),
        ("float32", "cpu", False, ""),
    ],
)
def test_what_is_warned_of(precision, device, bf16, words):
    said = list(slow(precision, device, bf16))
    assert (words in said[0]) if words else not said


def test_a_plan_warns_of_it(toy):
    env = Env("cpu", 2, "3.11", {"dinomx": "0"}, bf16=False)
    assert any(
        "this CPU has no units for bf16" in text for text in api.plan(toy(run={"precision": "bf16"}), env=env).warnings
    )
    assert Env.here().bf16 in (True, False, None)
