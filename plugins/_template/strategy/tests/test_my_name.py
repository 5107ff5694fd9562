"""What trains and what does not, and the contract of strategies."""

from torch import nn

from dinomx_core.testing import conformance
from dinomx_my_name import plugin
from dinomx_my_name.strategy import MyNameStrategy

test_conforms = conformance("dinomx-my-name")


def test_biases_alone_train():
    network = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    MyNameStrategy(plugin.MyName()).adapt(network)
    assert [name for name, parameter in network.named_parameters() if parameter.requires_grad] == ["0.bias", "1.bias"]
