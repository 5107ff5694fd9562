"""Whether a plugin's module, and what its hooks yield, can be used: what is wrong with them in words, before anything needs them."""

import difflib
import inspect
import re
from collections.abc import Collection
from types import ModuleType
from typing import Any

import attrs

from dinomx_core.declare import hooks
from dinomx_core.declare.commands import Command
from dinomx_core.declare.components import KINDS, Recipe
from dinomx_core.declare.faults import shown

BUILD = re.compile(r"\w+(\.\w+)*:\w+")
FILE = re.compile(r"\w+(\.\w+)*:[^:]+")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
MARK = f"{hooks.PROJECT}_impl"  # attribute of functions that are marked with @hookimpl
SUMMED_UP = (Recipe, Command)  # what has its summary as a field
SHARED = (list, dict, set)  # defaults that every run of a process would have in common


class Faulty(Exception):
    """What is wrong with a plugin, and the remedy where it is another one than its author's."""

    def __init__(self, cause: str, remedy: str = ""):
        self.cause, self.remedy = cause, remedy


def check_hooks(module: ModuleType) -> None:
    """Raise Faulty for functions that are marked and no hooks, or hooks and not marked."""
    known = hooks.HOOKS.values()
    for name, value in vars(module).items():
        if not inspect.isroutine(value):
            continue
        if not hasattr(value, MARK):
            if name in known and inspect.isfunction(value) and value.__module__ == module.__name__:
                raise Faulty(f"{name}() is not marked with @hookimpl")
            continue
        mark = getattr(value, MARK)
        if hook := mark.get("specname"):
            raise Faulty(f'"{name}" is marked with specname="{hook}"; a hook has its own name: def {hook}()')
        if name not in known:
            close = difflib.get_close_matches(
                name.removeprefix("dinomx_"), [hook.removeprefix("dinomx_") for hook in known], n=1
            )
            hint = f' (did you mean "dinomx_{close[0]}"?)' if close else ""
            raise Faulty(f'"{name}" is not a hook{hint}')
        if option := next((option for option in ("wrapper", "hookwrapper") if mark.get(option)), ""):
            raise Faulty(f"{name}() is marked with {option}=True, and hooks only declare; mark it with @hookimpl alone")
        if parameters := list(inspect.signature(value).parameters):
            raise Faulty(f"{name}() takes arguments ({', '.join(parameters)}), and hooks have none")


def check_declaration(component: Any, hook: str) -> None:
    """Raise Faulty for what does not belong into a hook, or could not be used."""
    kind = type(component)
    if kind not in KINDS or hooks.HOOKS[kind.kind] != hook:
        raise Faulty(f"it yielded {shown(component)}, which does not belong there")
    name = component.name
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise Faulty(f"the name {shown(name)} of a {kind.kind} is not one of letters, digits, '-', '_' and '.'")
    what = f'{kind.kind} "{name}"'
    build = getattr(component, "build", None)
    if build is not None and not (isinstance(build, str) and BUILD.fullmatch(build)):
        raise Faulty(f'the build path of the {what} is not "module:attribute": {shown(build)}')
    if isinstance(component, Recipe) and not (isinstance(component.path, str) and FILE.fullmatch(component.path)):
        raise Faulty(f'the path of the {what} is not "package:file": {shown(component.path)}')
    for field in attrs.fields(kind):
        value = getattr(component, field.name)
        if value is not field.default and "Callable[" in str(field.type) and not callable(value):
            raise Faulty(f"the {field.name} of the {what} is not a function: {shown(value)}")
        if field.type is str and not isinstance(value, str):
            raise Faulty(f"the {field.name} of the {what} is not a text: {shown(value)}")
    if isinstance(component, SUMMED_UP) and not component.summary.strip():
        raise Faulty(f"the summary of the {what} is empty")
    if (options := getattr(component, "options", None)) is None:
        return
    if not inspect.isclass(options) or not attrs.has(options):
        raise Faulty(f"the options of the {what} are not an attrs class: {shown(options)}")
    frame = kind.frame
    check_options(attrs.resolve_types(options), what, ("name", *(attrs.fields_dict(frame) if frame else ())))


def check_options(options: type, what: str, taken: Collection[str]) -> None:
    """Raise Faulty for options that a config could not give, as the table of their component has such keys without them, and for those
    whose default would be changed for everybody."""
    for field in attrs.fields(options):
        whose = f'the option "{field.name}" of the {what}'
        if field.name in taken:
            kind = what.partition(" ")[0]
            raise Faulty(f"{whose} has the name of a key that every {kind} has; rename the option")
        if isinstance(field.default, SHARED):
            name = type(field.default).__name__
            raise Faulty(
                f"{whose} has a {name} for a default, which all would share; write attrs.field(factory={name})"
            )
