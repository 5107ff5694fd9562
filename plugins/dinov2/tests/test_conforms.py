"""The contracts."""

from dinomx_core.testing import conformance

SMALL = {"width": 32, "depth": 2, "heads": 2, "patch_size": 4, "registers": 2}

test_conforms = conformance("dinomx-dinov2", {"backbone dinov2-registers": SMALL})
