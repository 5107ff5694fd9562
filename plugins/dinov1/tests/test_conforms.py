"""The contracts."""

from dinomx_core.testing import conformance

test_conforms = conformance("dinomx-dinov1")
