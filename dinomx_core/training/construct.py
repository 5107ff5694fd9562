"""Declarations -> objects."""

import importlib
from typing import Any

from dinomx_core.declare.components import Command, Component
from dinomx_core.declare.values import Chosen
from dinomx_core.errors import PluginError


def attribute(component: Component | Command) -> Any:
    """The object that a declaration's `build` names. Raises PluginError when the path does not lead anywhere."""
    module, _, name = component.build.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise PluginError(f'{component.kind} "{component.name}": cannot load {component.build}: {error}') from error


def construct(chosen: Chosen, *context: Any) -> Any:
    """Build a picked component with its options and what its kind is given."""
    return attribute(chosen.component)(chosen.options, *context)
