"""What a plan finds wrong, gathered: refusals with their places, and warnings."""

from dinomx_core.errors import Problem
from dinomx_core.planning.document import Document
from dinomx_core.planning.spec import RunSpec


class Report:
    """What looks at a spec writes its findings here. `maskings`: names of the maskings that are installed."""

    def __init__(self, spec: RunSpec, document: Document, maskings: list[str]):
        self.spec, self.document, self.maskings = spec, document, maskings
        self.problems: list[Problem] = []
        self.warnings: list[str] = []

    def refuse(self, message: str, key: str) -> None:
        """Note a problem at a key."""
        self.problems.append(Problem(message, key, self.document.place(tuple(key.split(".")))))
