"""The evaluations of a config that may hold nothing else, and whether a model can be measured by them. No torch."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs

from dinomx_core.declare.discover import Registry
from dinomx_core.declare.facts import DataInfo, Draft
from dinomx_core.declare.values import Chosen
from dinomx_core.errors import UNREADABLE, ConfigError, DataError, Problem
from dinomx_core.planning import document
from dinomx_core.planning.document import Document, Path_
from dinomx_core.planning.reader import to_measures
from dinomx_core.planning.subjects import Subject
from dinomx_core.planning.walk import as_table, chosen_parts, outer_sets


@attrs.frozen
class Measures:
    """Evaluators by label. intensity: in place of the model's own, where it is given. name: of the config."""

    evaluate: dict[str, Chosen]
    intensity: Chosen | None
    max_unreadable: float
    document: Document
    name: str

    @property
    def digest(self) -> str:
        """Stands for what is measured, whichever file says it."""
        tables = {"evaluate": as_table(self.evaluate), "intensity": as_table(self.intensity)}
        return hashlib.blake2b(json.dumps(tables, sort_keys=True).encode(), digest_size=8).hexdigest()


def read_measures(config: str | Path | dict[str, Any], overrides: Iterable[str], registry: Registry) -> Measures:
    """The [evaluate.NAME] tables of a config, of its last stage where there are several. Raises ConfigError with every problem found."""
    if isinstance(config, dict):
        parsed, name = Document(dict(config), {(): "config"}), "config"
    else:
        parsed, name = document.parse(document.read_text(Path(config)), str(config)), str(config)
    found = list(document.load(parsed, registry, list(overrides)).values())[-1]
    evaluate, intensity, loader = to_measures(found, registry)
    return Measures(evaluate, intensity, loader.max_unreadable, found, name)


def check_measures(measures: Measures, subject: Subject, device: str) -> list[str]:
    """What to warn of. Raises ConfigError with every reason why the model cannot be measured so."""
    return _Check(measures, subject).all(device)


class _Check:
    def __init__(self, measures: Measures, subject: Subject):
        self.measures, self.subject = measures, subject
        self.intensity = measures.intensity or subject.intensity
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self.broken: set[Path_] = set()

    def refuse(self, message: str, key: Path_) -> None:
        self.problems.append(Problem(message, ".".join(key), self.measures.document.place(key)))

    def all(self, device: str) -> list[str]:
        subject, parts = self.subject, list(chosen_parts({"evaluate": self.measures.evaluate}))
        draft = Draft(DataInfo(0, subject.channels), (), subject.shape, 0, 1, device)
        for path, chosen in outer_sets({"evaluate": self.measures.evaluate}):
            self.data(path, chosen, draft)
        for path, chosen in parts:
            if chosen.component.check and not any(broken[: len(path)] == path for broken in self.broken):
                for key, message in chosen.component.check(chosen.options, draft):
                    self.refuse(message, (*path, *key.split(".")) if key else path)
        if self.problems:
            raise ConfigError(list(dict.fromkeys(self.problems)))
        return self.warnings

    def data(self, path: Path_, chosen: Chosen, draft: Draft) -> None:
        try:
            info = chosen.component.inspect(chosen.options)
        except UNREADABLE as error:
            inner = error.key.split(".") if isinstance(error, DataError) and error.key else []
            self.refuse(str(error), (*path, *inner))
            self.broken.add(path)
            return
        self.warnings += [f"{'.'.join(path)}: {note}" for note in (*info.notes, *info.unreadable)]
        for message in self.misfits(info, draft):
            self.refuse(message, path)

    def misfits(self, info: DataInfo, draft: Draft) -> Iterator[str]:
        """Why a data set's images are none for the model."""
        subject, intensity = self.subject, self.intensity
        ours = intensity.component.channels(intensity.options, info.channels)
        if ours not in (1, subject.channels) and (ours, subject.channels) != (3, 1) and not subject.shape.any_channels:
            yield f"has {ours} channels, the model {subject.channels}"
        units = info.sampled.units if info.sampled else ""
        if info.sampled and units != subject.units and not self.measures.intensity:
            yield (
                f"its numbers have the units {units or 'none'}, those that the model was trained on {subject.units or 'none'}; say by "
                "[intensity] what they mean"
            )
        elif intensity.component.check:
            for key, sampled in info.samples("").items():
                seen = attrs.evolve(draft, data=attrs.evolve(info, sampled=sampled))
                for option, message in intensity.component.check(intensity.options, seen):
                    yield f"{key.strip('.')}: {message}".removeprefix(": ") + f" (intensity.{option})"
