"""Whether a plugin keeps to the contracts: `dinomx plugin check`, and the same in a plugin's own tests.

The whole of a test file:

    from dinomx_core.testing import conformance

    test_conforms = conformance("dinomx-koleo")
"""

from dinomx_core.testing.conform import check, conformance
from dinomx_core.testing.findings import Finding

__all__ = ["Finding", "check", "conformance"]
