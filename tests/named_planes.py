"""A data set whose channels have names, for tests."""

import attrs

from dinomx_core import DataInfo, Dataset, hookimpl, option


@attrs.frozen
class NamedPlanes:
    """Noise in named channels."""

    names: list[str] = option(doc="of the channels")
    count: int = option(24, "images")

    @property
    def channels(self):
        """How many."""
        return len(self.names)


@hookimpl
def dinomx_datasets():
    yield Dataset(
        "named",
        NamedPlanes,
        "dinomx_core.testing.toy_parts:PlanesData",
        inspect=lambda o: DataInfo(o.count, len(o.names), names=tuple(o.names)),
    )
