"""A strategy that goes wrong in one process, for tests."""

import attrs

from dinomx_core import Strategy, hookimpl, option


@attrs.frozen
class Broken:
    """Goes wrong at a step."""

    rank: int = option(1, "in this process")
    step: int = option(5, "before this step")
    how: str = option("bug", "bug, data, kill, hang or memory")


@hookimpl
def dinomx_strategies():
    yield Strategy("broken", Broken, "tests.broken_parts:BrokenStrategy")
