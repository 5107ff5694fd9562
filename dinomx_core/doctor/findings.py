"""A finding, and all of them."""

from collections.abc import Callable, Iterator
from typing import Literal

import attrs

from dinomx_core.declare.faults import cause

Level = Literal["ok", "note", "bad"]  # nothing to do; works, but slowly or not all of it; something will fail


@attrs.frozen
class Finding:
    """One thing found. remedy: what to do about it, "" where there is nothing to do."""

    topic: str
    level: Level
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        told = f"{self.text}; {self.remedy}" if self.remedy else self.text
        return f"{self.level.upper() if self.level == 'bad' else self.level:<5} {self.topic:<9} {told}"


Check = Callable[[], Iterator[Finding]]


def examine() -> Iterator[Finding]:
    """Every finding, as it is made. A check that fails is a finding, too."""
    from dinomx_core.doctor import machine, packages

    checks: tuple[tuple[str, Check], ...] = (
        ("python", packages.python),
        ("plugins", packages.plugins),
        ("packages", packages.required),
        ("extras", packages.extras),
        ("torch", packages.torch_build),
        ("torch", packages.torchvision),
        ("gpu", machine.gpus),
        ("bf16", machine.speed),
        ("cores", machine.cores),
        ("memory", machine.memory),
        ("disk", machine.disk),
        ("files", machine.files),
        ("hub", machine.hub),
    )
    for topic, check in checks:
        try:
            yield from check()
        except Exception as error:  # a doctor that falls ill still tells the rest
            yield Finding(topic, "bad", f"could not be examined: {cause(error)}")
