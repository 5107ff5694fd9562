"""The contracts."""

from dinomx_core.testing import conformance

OPTIONS = {
    "intensity window": {"ranges": [[0.0, 0.5], [10.0, 200.0]]},
    "intensity log": {"high": 65535.0},
}

test_conforms = conformance("dinomx-medical-multichannel", OPTIONS)
