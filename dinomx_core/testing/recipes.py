"""Checks of recipes. No torch."""

import importlib.metadata
import re
from collections.abc import Iterator
from typing import Any

from dinomx_core import api
from dinomx_core.errors import ConfigError
from dinomx_core.planning.document import Document, load, to_toml
from dinomx_core.planning.reader import to_spec
from dinomx_core.planning.walk import chosen_parts, tables
from dinomx_core.testing import toy
from dinomx_core.testing.findings import Skip, check
from dinomx_core.testing.subject import Part, not_the_users

IMAGES = {"name": toy.PLANES, "channels": 3, "count": 100_000}
REQUIRED = re.compile(r"^[A-Za-z0-9._-]+")


def tables_of(part: Part) -> dict[str, Any]:
    """A config of nothing but the recipe, images, and what is given for the checks."""
    base = {"recipe": part.component.name, "data": IMAGES, "run": {"device": "cpu", "name": "recipe"}}
    return toy.changed(base, part.subject.options.get(str(part), {}))


@check("recipe", "plans", "leave to the user what names files of the user's, and nothing else")
def plans(part: Part) -> Iterator[str]:
    """Data added, every stage plans: all options are known, and nothing contradicts anything."""
    file = part.subject.place / f"{part.component.name}.toml"
    file.write_text(to_toml(tables_of(part)), "utf-8")
    try:
        api.plans(file, plugins=part.subject.modules, out=part.subject.place)
    except ConfigError as error:
        faults = not_the_users(error)
        yield from map(str, faults)
        if not faults:
            raise Skip(f"it leaves files to the user: {error}") from None


@check("recipe", "requires", "name their packages in `dependencies` of pyproject.toml")
def requires(part: Part) -> Iterator[str]:
    """Its components are those of packages that the plugin's own package depends on."""
    subject = part.subject
    try:
        known = reached(subject.plugin.distribution)
    except importlib.metadata.PackageNotFoundError:
        raise Skip(f"{subject.plugin.distribution} is not installed, so what it depends on is not known") from None
    owners = {(c.kind, c.name): p.distribution for p in subject.registry.plugins for c in p.components}
    try:
        stages = load(Document(tables_of(part), {(): "recipe"}), subject.registry, [])
        specs = [to_spec(stage, subject.registry) for stage in stages.values()]
    except ConfigError as error:
        raise Skip(f"it cannot be read as it is: {error}") from None
    for spec in specs:
        for path, chosen in chosen_parts(tables(spec)):
            owner = owners[chosen.component.kind, chosen.component.name]
            if path != ("data",) and owner not in known:
                yield f'{".".join(path)} is the {chosen.component.kind} "{chosen.component.name}" of {owner}'


def reached(distribution: str) -> set[str]:
    """A package and all that it depends on, of those that are installed."""
    found, left = set(), [distribution, "dinomx"]
    while left:
        name = left.pop()
        if name in found or not name.startswith("dinomx"):
            continue
        found.add(name)
        for line in importlib.metadata.requires(name) or []:
            if "extra ==" not in line and (match := REQUIRED.match(line)):
                left.append(match[0])
    return found
