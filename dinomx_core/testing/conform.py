"""All checks of a plugin: as a list of findings, and as tests."""

import importlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from dinomx_core.declare.components import Component
from dinomx_core.testing.findings import CHECKS, COMPONENT, PLUGIN, Check, Finding, made
from dinomx_core.testing.subject import Options, Part, Subject, find

MODULES = ("packages", "trains", "backbones", "heads", "losses", "views", "data", "strategies", "recipes")


def all_checks() -> list[Check]:
    """Every check, in the order that they are made in."""
    for name in MODULES:
        importlib.import_module(f"dinomx_core.testing.{name}")
    return CHECKS


def cases(subject: Subject, fast: bool = False) -> Iterator[tuple[Check, Subject | Part]]:
    """The checks of a plugin: those of the whole, then those of each component. Of one that does not load, the first alone."""
    wanted = [one for one in all_checks() if not (fast and one.slow)]
    if subject.plugin.error:
        yield next(one for one in wanted if one.kind == PLUGIN), subject
        return
    yield from ((one, subject) for one in wanted if one.kind == PLUGIN)
    for part in subject.parts:
        kinds = (COMPONENT, part.kind) if isinstance(part.component, Component) else (part.kind,)
        yield from ((one, part) for one in wanted if one.kind in kinds)


def findings(subject: Subject, fast: bool = False) -> Iterator[Finding]:
    """What each check finds, as it is made; of a component of which nothing can be built, that alone."""
    for one, about in cases(subject, fast):
        if isinstance(about, Subject) or one.kind == COMPONENT or not about.lacking:
            yield made(one, about)


def check(plugin: str | ModuleType, options: Options | None = None, fast: bool = False) -> list[Finding]:
    """Check an installed plugin by its name or its package's, or a module of declarations.

    options: tables for components that have options without a default, by "kind name", or what gives them. fast:
    leave out checks of more than a few seconds. Raises PluginError where there is no such plugin.
    """
    return list(findings(find(plugin, options), fast))


def conformance(plugin: str | ModuleType, options: Options | None = None) -> Callable[..., None]:
    """A pytest test of a plugin with an item for each check of each of its components; those of more than a few seconds are marked `slow`.
    Arguments as `check` has them."""
    import pytest

    def item(one: Check, about: Subject | Part) -> Any:
        return pytest.param(one, about, id=f"{about}: {one.name}", marks=[pytest.mark.slow] if one.slow else [])

    @pytest.mark.parametrize(("one", "about"), [item(*case) for case in cases(find(plugin, options))])
    def test_conforms(one: Check, about: Subject | Part) -> None:
        finding = made(one, about)
        if finding.state == "skipped":
            pytest.skip(finding.message)
        if finding.state == "failed":
            pytest.fail(f"{finding.component}: {finding.check}: {finding.text}", pytrace=False)

    return test_conforms
