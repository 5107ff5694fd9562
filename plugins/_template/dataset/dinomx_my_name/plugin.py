"""Declarations. No torch here: the plan and `dinomx --help` read them."""

import attrs

from dinomx_core import DataInfo, Dataset, hookimpl, option, positive

DINOMX_API = 1


@attrs.frozen
class MyName:
    """Stripes that run across or down, of random widths: drawn, not read, so that there is nothing to download."""

    count: int = option(500, "images", check=positive)
    size: int = option(24, "their side in pixels", check=positive)


def my_name_inspect(options: MyName) -> DataInfo:
    """What there is, found without reading all of it. Raises DataError where it cannot be found."""
    return DataInfo(options.count, channels=1, classes=("across", "down"))


@hookimpl
def dinomx_datasets():
    yield Dataset("my-name", MyName, "dinomx_my_name.dataset:MyNameData", inspect=my_name_inspect)
