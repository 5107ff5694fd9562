"""The backbone's positions, and the contract of backbones."""

import torch

from dinomx_core.testing import conformance
from dinomx_my_name.backbone import waves

test_conforms = conformance("dinomx-my-name")


def test_positions_are_alike_where_they_are_near():
    table = waves(4, 16)
    near, far = table[0] @ table[1], table[0] @ table[15]
    assert table.shape == (16, 16) and near > far
    assert torch.equal(table[1, :8], table[5, :8]) and torch.equal(table[4, 8:], table[5, 8:])  # a column; a row
