"""The figure against its definition, and the contract of evaluators."""

import pytest
import torch

from dinomx_core.testing import conformance
from dinomx_my_name.evaluator import uniformity

test_conforms = conformance("dinomx-my-name")


def test_features_that_are_the_same_have_none_and_opposite_ones_the_most():
    assert uniformity(torch.ones(3, 4)) == pytest.approx(0.0, abs=1e-6)
    assert uniformity(torch.tensor([[1.0, 0.0], [-5.0, 0.0]])) == pytest.approx(8.0)
