"""The loss against its definition, and the contract of losses."""

import pytest
import torch

from dinomx_core.testing import conformance
from dinomx_my_name import plugin
from dinomx_my_name.loss import MyNameLoss

test_conforms = conformance("dinomx-my-name")


@pytest.mark.parametrize(("spread", "cost"), [(0.0, 0.99), (0.5, 0.5), (2.0, 0.0)])
def test_what_lacks_to_the_margin_is_the_cost(spread, cost):
    loss = MyNameLoss(plugin.MyName(margin=1.0), None)
    tokens = torch.tensor([[-spread], [spread]]).expand(2, 2, 3)
    assert loss({loss.request: tokens}, None, {}).value.item() == pytest.approx(cost, abs=1e-3)
