"""The recipe's values, and the contract of recipes."""

from pathlib import Path

from dinomx_core import plan
from dinomx_core.testing import conformance

test_conforms = conformance("dinomx-my-name")


def test_it_plans_what_it_promises():
    made = plan(Path(__file__).parents[1] / "example.toml")
    assert (made.backbone.width, made.backbone.depth) == (64, 3) and made.heads["dino"].outputs == 512
    assert made.values_at(0)["teacher.momentum"] == 0.98
