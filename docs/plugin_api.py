"""docs/plugin-api.md from the code: hooks, declarations, contracts. `docs/generate.py` writes it; a name without its text fails."""

import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import attrs

import dinomx_core
from dinomx_core.declare import components, hooks
from dinomx_core.declare.components import KINDS
from dinomx_core.declare.discover import API_VERSION, GROUP

SPECIAL = ("__call__", "__len__", "__getitem__")
CONTRACTS = (
    "dinomx_core.training.contracts",
    "dinomx_core.training.backbone",
    "dinomx_core.training.flow",
    "dinomx_core.training.streams",
    "dinomx_core.training.pixels",
)
HEAD = f"""\
# Plugin reference

Generated from the code by `make docs`. How to write one: [a first loss](tutorials/first-loss.md), [a backbone](tutorials/backbone.md),
[an augmentation for a domain](tutorials/domain-augmentation.md), [a strategy](tutorials/strategy.md).

A plugin is a module that an installed package names under the entry point group `{GROUP}`:

```text
[project.entry-points."{GROUP}"]
spread = "dinomx_spread.plugin"
```

Its functions marked with `@hookimpl` yield declarations. They import no torch: what builds a part is named as text, `"module:attribute"`,
and imported when a run builds it. `DINOMX_API = {API_VERSION}` in the module says which version of hooks, declarations and contracts it is
made for; this is version {API_VERSION}, and so is a module that says nothing.
"""


class Missing(Exception):
    """Something public that nobody has described."""


def text_of(thing: Any, name: str) -> str:
    """A docstring. Raises Missing where there is none."""
    if not thing.__doc__:
        raise Missing(f"{name} has no docstring")
    return inspect.cleandoc(thing.__doc__)


def shown(kind: Any) -> str:
    """A type as it is written."""
    name = (
        kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind)) if isinstance(kind, type) else str(kind)
    )
    return re.sub(r"\b(?:typing|collections\.abc|dinomx_core[\w.]*|torch|builtins)\.(?=\w)", "", name).replace(
        "|", "\\|"
    )


def fields(cls: type) -> Iterator[str]:
    """A table of an attrs class's fields."""
    yield "| field | type | default |"
    yield "|---|---|---|"
    for field in attrs.fields(cls):
        default = field.default.factory() if isinstance(field.default, attrs.Factory) else field.default  # type: ignore[arg-type]
        told = "required" if field.default is attrs.NOTHING else "" if inspect.isfunction(default) else f"`{default!r}`"
        yield f"| `{field.name}` | `{shown(field.type)}` | {told} |"


def signature_of(made: FunctionType) -> str:
    """Parameters and result as they are written, without `self`."""
    text = shown(str(inspect.signature(made)).replace("'", "")).replace("\\|", "|")
    return re.sub(r"<object object at \w+>", "…", re.sub(r"\bself,? ?", "", text))


def attributes(cls: type) -> Iterator[str]:
    """A data class's fields."""
    for field in dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ():
        yield f"- `{field.name}: {shown(field.type)}`".replace("\\|", "|")


def methods(cls: type) -> Iterator[str]:
    """A class's own public methods, each with its text."""
    for name, value in vars(cls).items():
        made = value.fget if isinstance(value, property) else inspect.unwrap(value) if callable(value) else None
        if not isinstance(made, FunctionType) or (name.startswith("_") and name not in SPECIAL):
            continue
        needed = " (must be there)" if getattr(value, "__isabstractmethod__", False) else ""
        title = name if isinstance(value, property) else f"{name}{signature_of(made)}"
        text = " ".join(text_of(made, f"{cls.__module__}.{cls.__name__}.{name}").split())
        yield f"- `{title}`{needed}: {text}"


def contract_of(kind: type) -> None:
    """Raise Missing unless a declaration's text says where the contract of what it builds is."""
    found = re.search(r"-> +`([\w.]+)`", " ".join(text_of(kind, kind.__name__).split()))
    if found is None:
        raise Missing(f"{kind.__name__}'s docstring does not say what it is built as: -> `training.contracts.X`")
    path = found[1]
    module, _, name = (path if path.startswith("torch.") else f"dinomx_core.{path}").rpartition(".")
    if not hasattr(importlib.import_module(module), name):
        raise Missing(f"{kind.__name__} is built as {path}, which is not there")


def described() -> Iterator[tuple[str, Any]]:
    """Public classes of declarations beside the kinds, and of contracts."""
    for name in dinomx_core.__all__:
        thing = getattr(dinomx_core, name)
        if inspect.isclass(thing) and thing not in KINDS:
            yield name, thing


def page() -> str:
    """The whole page. Raises Missing."""
    lines = [HEAD, "## Hooks", "", "| hook | yields | for example |", "|---|---|---|"]
    for kind, hook in hooks.HOOKS.items():
        text = text_of(getattr(hooks, hook), hook)
        example = re.search(r"e\.g\. (`.*`)", text, re.DOTALL)
        if example is None:
            raise Missing(f"{hook}'s docstring has no example: e.g. `yield …`")
        declared = next(cls.__name__ for cls in KINDS if cls.kind == kind)  # type: ignore[attr-defined]
        lines.append(f"| `{hook}` | [{declared}](#{declared.lower()}) | {' '.join(example[1].split())} |")
    lines += ["", "## Declarations", "", "All are importable from `dinomx_core`, and frozen attrs classes.", ""]
    for cls in KINDS:
        lines += [f"### {cls.__name__}", "", text_of(cls, cls.__name__), ""]
        if cls not in (components.Recipe, components.Command):
            contract_of(cls)
        lines += [*fields(cls), ""]
    lines += ["## What declarations are given, and give", ""]
    for name, cls in described():
        lines += [f"### {name}", "", text_of(cls, name), ""]
        if attrs.has(cls) and not issubclass(cls, BaseException):
            lines += [*fields(cls), ""]
        lines += [*methods(cls), ""] if list(methods(cls)) else []
    lines += ["## Helpers", ""]
    for name in dinomx_core.__all__:
        thing = getattr(dinomx_core, name)
        if isinstance(thing, FunctionType):
            lines.append(f"- `{name}{signature_of(thing)}`: {' '.join(text_of(thing, name).split())}")
    lines += ["", "## Contracts", "", "What is built, in `dinomx_core.training`; these import torch.", ""]
    for path in CONTRACTS:
        module = importlib.import_module(path)
        lines += [f"### `{path}`", "", text_of(module, path), ""]
        own = {name: thing for name, thing in vars(module).items() if getattr(thing, "__module__", "") == path}
        public = {name: thing for name, thing in own.items() if not name.startswith("_")}
        for name, cls in public.items():
            if inspect.isclass(cls):
                lines += [f"#### {name}", "", text_of(cls, name), "", *attributes(cls), *methods(cls), ""]
        for name, made in public.items():
            if isinstance(made, FunctionType):
                lines.append(f"- `{name}{signature_of(made)}`: {' '.join(text_of(made, name).split())}")
        lines.append("")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"
