"""Checks and what they find. A check is a function that yields what is wrong, in words; `CHECKS` has all of them."""

import traceback
from collections.abc import Callable, Iterable
from typing import Any, Literal

import attrs

from dinomx_core.errors import DinomxError

PLUGIN = "plugin"  # the kind of checks of a plugin as a whole
COMPONENT = "component"  # and of those of any component that nothing can be built of


@attrs.frozen
class Check:
    """One check of every component of a kind, or of the plugin. proves: what holds where it passes; remedy: what to do where it does not;
    slow: takes more than a few seconds."""

    kind: str
    name: str
    proves: str
    remedy: str
    slow: bool
    faults: Callable[[Any], Iterable[str]]


@attrs.frozen
class Finding:
    """What a check found of a component ("loss koleo", or "plugin"). message: what is wrong, or why it was skipped; contract and remedy:
    of a failure, what should hold and what helps."""

    component: str
    check: str
    state: Literal["ok", "failed", "skipped"]
    message: str = ""
    contract: str = ""
    remedy: str = ""

    @property
    def text(self) -> str:
        """All that there is to say of it."""
        further = {"contract": self.contract, "remedy": self.remedy}
        return "\n".join([self.message, *(f"{name}: {words}" for name, words in further.items() if words)])

    def __str__(self) -> str:
        head = f"{self.state:<8} {self.component:<28} {self.check}"
        return f"{head}\n         {self.text.replace(chr(10), chr(10) + ' ' * 9)}" if self.message else head


class Skip(Exception):
    """A check cannot be made; the text says why."""


CHECKS: list[Check] = []


def check(kind: str, name: str, remedy: str, slow: bool = False) -> Callable[[Callable], Callable]:
    """Register a function of what is checked that yields faults, as texts. The first line of its docstring says what it proves. It may
    raise `Skip`; whatever else it raises is a fault, too."""

    def registered(function: Callable[[Any], Iterable[str]]) -> Callable[[Any], Iterable[str]]:
        proves = (function.__doc__ or "").strip().partition("\n")[0]
        CHECKS.append(Check(kind, name, proves, remedy, slow, function))
        return function

    return registered


def made(one: Check, subject: Any) -> Finding:
    """Make a check of a plugin or a component."""
    component = str(subject)
    try:
        if one.kind not in (PLUGIN, COMPONENT) and subject.lacking:
            raise Skip(subject.lacking)
        faults = list(one.faults(subject))
    except Skip as reason:
        return Finding(component, one.name, "skipped", str(reason))
    except Exception as error:
        faults = [told(error)]
    if not faults:
        return Finding(component, one.name, "ok")
    return Finding(component, one.name, "failed", "\n".join(faults), one.proves, one.remedy)


def told(error: BaseException) -> str:
    """An error in a line: a plain one as it is, another with its type and where it arose."""
    if isinstance(error, DinomxError):
        return str(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"{text.partition(chr(10))[0]} ({where.filename}:{where.lineno})"
