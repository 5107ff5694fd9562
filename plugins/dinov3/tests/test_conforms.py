"""The contracts."""

import tempfile

from dinomx_core import api
from dinomx_core.testing import conformance, toy

PLACE = tempfile.TemporaryDirectory()


def options():
    """A small ConvNeXt, and a model that the Gram loss keeps to."""
    teacher = api.run(toy.changed(toy.CONFIG, {"run": {"steps": 1}}), plugins=[toy], out=PLACE.name).export
    return {
        "backbone dinov3-convnext": {"widths": [8, 16, 24, 32], "depths": [1, 1, 2, 1]},
        "loss gram": {"teacher": str(teacher)},
    }


test_conforms = conformance("dinomx-dinov3", options)
