"""Declarations -> objects."""

import importlib
from typing import Any

from dinomx_core.declare.components import Command, Component
from dinomx_core.declare.faults import cause, faulty
from dinomx_core.declare.values import Chosen
from dinomx_core.errors import UNREADABLE, DinomxError

CONTRACTS = {
    "backbone": "dinomx_core.training.backbone.Backbone",
    "head": "torch.nn.Module",
    "target": "dinomx_core.training.contracts.Target",
    "loss": "dinomx_core.training.contracts.Loss",
    "augmentation": "dinomx_core.training.contracts.Augmentation",
    "placement": "dinomx_core.training.contracts.Placement",
    "masking": "dinomx_core.training.contracts.Masking",
    "strategy": "dinomx_core.training.contracts.Strategy",
    "parallelism": "dinomx_core.training.contracts.Parallelism",
    "dataset": "dinomx_core.training.contracts.Dataset",
    "reader": "dinomx_core.declare.reading.PlaneReader",
    "intensity": "dinomx_core.training.contracts.Intensity",
    "evaluator": "dinomx_core.training.contracts.Evaluator",
    "tracker": "dinomx_core.declare.tracking.Tracker",
}  # what building a component of a kind gives


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
    """Build a picked component with its options and what its kind is given. Raises PluginError for what its package has
    not foreseen, and where what it gives is none of its kind."""
    make = attribute(chosen.component)
    if not chosen.component.package:
        return make(chosen.options, *context)
    try:
        made = make(chosen.options, *context)
    except (DinomxError, *UNREADABLE):
        raise
    except Exception as error:
        raise faulty(chosen.component, f"{chosen.component.build} cannot be built: {cause(error)}") from error
    check_contract(chosen.component, made)
    return made


def check_contract(component: Component, made: Any) -> None:
    """Raise PluginError for what is none of its kind."""
    path = CONTRACTS[component.kind]
    module, _, name = path.rpartition(".")
    if not isinstance(made, getattr(importlib.import_module(module), name)):
        what = type(made).__name__
        given = "nothing" if made is None else f"{'an' if what[0] in 'AEIOUaeiou' else 'a'} {what}, which is no {path}"
        raise faulty(component, f"{component.build} gave {given}; it is to give what derives from {path}")
