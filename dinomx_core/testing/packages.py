"""Checks of a plugin as a whole that train nothing."""

import importlib.metadata
import inspect
import os
import re
import subprocess
import sys
import typing
from collections.abc import Iterator

import attrs

from dinomx_core.declare.components import Recipe
from dinomx_core.declare.values import Chosen, Length, Schedule, Size
from dinomx_core.testing.findings import COMPONENT, PLUGIN, Skip, check
from dinomx_core.testing.subject import EXAMPLES, README, Part, Subject
from dinomx_core.training.construct import attribute

HEAVY = ("torch", "transformers", "monai", "sklearn")
OURS = (Chosen, Length, Schedule, Size)
IMPORTS = "import importlib, sys; importlib.import_module({!r}); print(*[n for n in {!r} if n in sys.modules])"


@check(PLUGIN, "loads", "mend what the message names; `dinomx plugins` shows the same")
def loads(subject: Subject) -> Iterator[str]:
    """Its declarations can be imported, are for this version of the plugin API, and yield from hooks that there are."""
    if subject.plugin.error:
        yield subject.plugin.error


@check(PLUGIN, "torch-free", "import it in the module that `build` names, which is imported when a run is built")
def torch_free(subject: Subject) -> Iterator[str]:
    """Its declarations import none of torch, transformers, monai and sklearn, so that the plan and `dinomx --help` stay quick."""
    code = IMPORTS.format(subject.plugin.module, HEAVY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    if done.returncode:
        yield f"{subject.plugin.module} cannot be imported by itself: {done.stderr.strip().splitlines()[-1]}"
    for name in done.stdout.split():
        yield f"importing {subject.plugin.module} imports {name}"


def environment() -> dict[str, str]:
    """For a process that imports what this one does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}


@check(
    PLUGIN,
    "documented",
    "give the class a docstring and each option a text: they go into `dinomx plugins` and the reference",
)
def documented(subject: Subject) -> Iterator[str]:
    """Every component has a summary, every option a text."""
    for component in subject.plugin.components:
        who = f"{component.kind} {component.name}"
        if not component.summary:
            what = "the class of its options has no docstring" if hasattr(component, "options") else "it has no summary"
            yield f"{who}: {what}"
        if isinstance(options := getattr(component, "options", None), type):
            yield from undocumented(options, who)


def undocumented(options: type, who: str, seen: tuple[type, ...] = ()) -> Iterator[str]:
    """Options without a text, and classes of tables within without a docstring."""
    for field in attrs.fields(attrs.resolve_types(options)):
        if not field.metadata.get("doc"):
            yield f'{who}: the option {options.__name__}.{field.name} has no text; use option(default, "what it does")'
        for inner in (field.type, *typing.get_args(field.type)):
            if attrs.has(inner) and inner not in (*OURS, *seen):
                if not inner.__doc__:
                    yield f"{who}: the class {inner.__name__} has no docstring"
                yield from undocumented(inner, who, (*seen, options))


@check(PLUGIN, "built", 'write "module:attribute", and see that the module can be imported')
def can_be_built(subject: Subject) -> Iterator[str]:
    """Every `build` leads to something that can be called, every recipe to its file."""
    for component in subject.plugin.components:
        if isinstance(component, Recipe):
            package, _, file = component.path.partition(":")
            if not importlib.resources.files(package).joinpath(file).is_file():
                yield f'recipe {component.name}: there is no file "{file}" in {package}; ship it inside the package'
        elif not callable(attribute(component)):
            yield f"{component.kind} {component.name}: {component.build} cannot be called"


@check(PLUGIN, "files", "write them: a README for people, an example that trains in seconds")
def files(subject: Subject) -> Iterator[str]:
    """README.md and example.toml stand beside the package, and the README names every component."""
    readme, example = subject.file(README), subject.file(*EXAMPLES)
    for file in (readme, example):
        if not file.is_file():
            yield f"there is no {file}"
    text = readme.read_text("utf-8") if readme.is_file() else ""
    for component in subject.plugin.components if text and subject.plugin.distribution != "dinomx" else ():
        if not re.search(rf"(?<![\w-]){re.escape(component.name)}(?![\w-])", text):
            yield f"README.md does not name the {component.kind} {component.name}"


@check(COMPONENT, "options", 'give them in example.toml; in tests, as conformance(…, options={"kind name": {…}})')
def options(part: Part) -> Iterator[str]:
    """Every component can be built by its defaults, or by the options that example.toml gives it."""
    if part.lacking:
        raise Skip(part.lacking)
    return iter(())


@check("command", "help", "annotate its parameters as typer has them, and give it a docstring")
def command_help(part: Part) -> Iterator[str]:
    """`dinomx NAME --help` can be made of the function: typer takes its parameters, and it has a docstring."""
    import typer

    function = attribute(part.component)
    if not inspect.getdoc(function):
        yield "the function has no docstring, which is the command's help"
    app = typer.Typer()
    app.command()(function)
    typer.main.get_command(app)
