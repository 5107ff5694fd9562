"""Images are of their class, and the contract of data sets."""

from dinomx_core.testing import conformance
from dinomx_my_name import plugin
from dinomx_my_name.dataset import MyNameData

test_conforms = conformance("dinomx-my-name")


def test_stripes_run_as_their_label_says():
    data = MyNameData(plugin.MyName())
    across, down = data[0], data[1]
    assert (across.label, down.label) == (0, 1)
    assert (across.image == across.image[:, :, :1]).all() and (down.image == down.image[:, :1]).all()
