"""What is wrong with a plugin, in one line that ends with what to do; and functions of declarations that say whose they are."""

import importlib
import os
import reprlib
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attr
import attrs

from dinomx_core.declare.facts import (
    BackboneShape,
    DataInfo,
    Frozen,
    HeadShape,
    Parameters,
    Preprocessing,
    Request,
    View,
)
from dinomx_core.errors import UNREADABLE, DinomxError, PluginError

READ = (
    "inspect",
    "index",
    "shape",
    "check",
    "from_weights",
)  # functions that look at files, whose faults the plan tells
SEVERAL: dict[str, Any] = {
    "requests": Request,
    "networks": Frozen,
    "views": View,
    "check": tuple,
}  # what functions give, any number of them
ONE: dict[str, Any] = {
    "inspect": DataInfo,
    "shape": (BackboneShape, HeadShape),
    "preprocessing": Preprocessing,
    "adapt": Parameters,
}
READERS = [str(Path(attr.__file__).parents[1] / name) + os.sep for name in ("attr", "cattrs")]  # of options
# beginnings of files that are not a plugin's
OURS = (str(Path(__file__).parents[1]), importlib.__file__, "<", *READERS)


def cause(error: BaseException) -> str:
    """An error's kind and text, and the line of a plugin's that led to it."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(OURS)]
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    text = text_of(error)
    return (f"{type(error).__name__}: {text}" if text else type(error).__name__) + place


def text_of(error: object) -> str:
    """An error's text in one line; "" where it has none, or fails to say it."""
    arguments: tuple[Any, ...] = getattr(error, "args", ())
    if len(arguments) > 1 and isinstance(arguments[1], attrs.Attribute):
        error = arguments[0]  # attrs' validators give what they looked at, too
    try:
        return " ".join(str(error).split())
    except Exception:
        return ""


SHORT = reprlib.Repr()
SHORT.maxother = SHORT.maxstring = SHORT.maxlong = 100


def shown(value: object) -> str:
    """A value of a plugin's in one line, shortened where it is long."""
    try:
        return " ".join(SHORT.repr(value).split())
    except Exception:
        return f"a {type(value).__name__}"


def authors(package: str) -> str:
    """The remedy for what only a plugin's author can mend."""
    return f"tell the author of {package}, or remove it: pip uninstall {package}"


def faulty(component: Any, why: str, remedy: str = "") -> PluginError:
    """An error that names a component and its package, and ends with what to do."""
    package = component.package
    whose = f'{component.kind} "{component.name}"' + (f" of {package}" if package else "")
    return PluginError(f"{whose}: {why}" + (f"; {remedy or authors(package)}" if package else ""))


def not_imported(module: str, package: str, error: BaseException) -> str:
    """Why a plugin's module cannot be imported."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return f"cannot import {module}: {cause(error)}; {authors(package)}"
    if module == error.name or module.startswith(f"{error.name}."):
        return f"there is no module {module}; install it again, or remove it: pip uninstall {package}"
    return f'needs the package "{error.name}"; install that, or remove the plugin: pip uninstall {package}'


@attrs.frozen
class Guarded:
    """A function of a declaration; what it raises that is no message for users names the component and its package."""

    function: Callable[..., Any]
    name: str
    what: str
    package: str

    def __call__(self, *given: Any) -> Any:
        """The function's result, of several things as a list. Raises PluginError."""
        passed = (DinomxError, *UNREADABLE) if self.name in READ else (DinomxError,)
        try:
            result = self.function(*given)
            result = list(result) if self.name in SEVERAL else result
        except passed:
            raise
        except Exception as error:
            raise PluginError(f"{self.what} failed: {cause(error)}; {authors(self.package)}") from error
        kind = SEVERAL.get(self.name) or ONE.get(self.name)
        for one in result if self.name in SEVERAL else [result]:
            if kind and not isinstance(one, kind):
                raise PluginError(
                    f"{self.what} gave {shown(one)}, which does not belong there; {authors(self.package)}"
                )
        return result


def guarded(component: Any, package: str) -> Any:
    """A declaration whose functions name it and its package when they fail, and which knows its package."""
    changes: dict[str, Any] = {"package": package} if hasattr(component, "package") else {}  # a recipe is no code
    for field in attrs.fields(type(component)):
        value = getattr(component, field.name)
        if callable(value) and not isinstance(value, type):
            what = f'{component.kind} "{component.name}" of {package}: its function `{field.name}`'
            changes[field.name] = Guarded(value, field.name, what, package)
    return attrs.evolve(component, **changes)
