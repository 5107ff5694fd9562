"""Declarations -> objects."""

import importlib
from typing import Any

from dinomx_core.declare.components import Command, Component
from dinomx_core.declare.faults import authors, cause
from dinomx_core.declare.values import Chosen
from dinomx_core.errors import UNREADABLE, DinomxError, PluginError


def attribute(component: Component | Command) -> Any:
    """The object that a declaration's `build` names. Raises PluginError when the path does not lead anywhere."""
    module, _, name = component.build.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:
        if not component.package and not isinstance(error, (ImportError, AttributeError)):
            raise
        if isinstance(error, ModuleNotFoundError) and error.name != module:
            remedy = f"install that, or remove the plugin: pip uninstall {component.package}"
            raise faulty(component, f'needs the package "{error.name}"', remedy) from error
        raise faulty(component, f"cannot load {component.build}: {cause(error)}") from error


def construct(chosen: Chosen, *context: Any) -> Any:
    """Build a picked component with its options and what its kind is given. Raises PluginError for what its package has not foreseen."""
    make = attribute(chosen.component)
    if not chosen.component.package:
        return make(chosen.options, *context)
    try:
        return make(chosen.options, *context)
    except (DinomxError, *UNREADABLE):
        raise
    except Exception as error:
        raise faulty(chosen.component, f"{chosen.component.build} cannot be built: {cause(error)}") from error


def faulty(component: Component | Command, why: str, remedy: str = "") -> PluginError:
    """An error that names a component and its package, and ends with what to do."""
    package = component.package
    whose = f'{component.kind} "{component.name}"' + (f" of {package}" if package else "")
    return PluginError(f"{whose}: {why}" + (f"; {remedy or authors(package)}" if package else ""))
