"""A data set of any number of channels, for tests."""

import attrs

from dinomx_core import DataInfo, Dataset, hookimpl, option, positive


@attrs.frozen
class Planes:
    """Random images of smooth planes."""

    channels: int = option(5, "channels of an image", check=positive)
    count: int = option(48, "images", check=positive)


@hookimpl
def dinomx_datasets():
    yield Dataset("planes", Planes, "tests.planes_parts:PlanesData", inspect=lambda o: DataInfo(o.count, o.channels))
