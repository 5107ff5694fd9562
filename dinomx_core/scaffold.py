"""`dinomx plugin new`: a package of a plugin, written from `plugins/_template`."""

import keyword
import re
from importlib.util import find_spec
from pathlib import Path

import dinomx_core
from dinomx_core.declare.discover import Registry, discover
from dinomx_core.errors import ConfigError, Problem
from dinomx_core.shipped import shipped

KINDS = ("loss", "backbone", "augmentation", "strategy", "dataset", "evaluator", "recipe")
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
LONGEST = 40
COMMON = "common"  # what packages of every kind have; a kind's own file takes its place


def new_plugin(name: str, kind: str, out: Path) -> Path:
    """Write the package of a plugin with one component of a kind: `dinomx-NAME`, into a folder of that name in `out`. Returns the folder.
    Raises ConfigError where the kind is none of `KINDS`, the name cannot be used or is taken, or the folder is there."""
    if kind not in KINDS:
        raise ConfigError([Problem(f'expected one of {", ".join(KINDS)}, got "{kind}"', "--kind")])
    folder = out / f"dinomx-{name}"
    if fault := fault_of(name) or taken(name, kind, discover()):
        raise ConfigError([Problem(fault, "NAME")])
    if folder.exists():
        raise ConfigError([Problem(f"{folder} is there already; choose another name, or another folder by --out")])
    try:
        for file, text in files_of(name, kind).items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(
            [Problem(f"{folder} cannot be written ({error.strerror}); choose another", "--out")]
        ) from None
    return folder


def fault_of(name: str) -> str:
    """What is wrong with a name in itself, and what to do; or ""."""
    if name.startswith("dinomx-"):
        return f'"{name}" has the beginning of every package; leave it out: {name.removeprefix("dinomx-")}'
    if len(name) > LONGEST or not NAME.fullmatch(name):
        words = "lower-case letters and digits, in words divided by single hyphens, with a letter first"
        return f'expected {words}, {LONGEST} characters at most, got "{name}"'
    if keyword.iskeyword(class_of(name)) or class_of(name) in dinomx_core.__all__:
        return f'"{name}" would make a class {class_of(name)}, which Python or dinomx_core has already; choose another'
    return ""


def taken(name: str, kind: str, registry: Registry) -> str:
    """Who has a name already, and what to do; or ""."""
    package = f"dinomx-{name}"
    if name in registry.names(kind):
        return f'the {kind} "{name}" is there already (see `dinomx plugins`); choose another'
    if package in {row.package for row in registry.available}:
        return f'"{package}" is a package of DINO-MX (see `dinomx plugins`); choose another'
    if find_spec(module_of(name)) or package in {plugin.distribution for plugin in registry.plugins}:
        return f'a package "{package}" is installed; choose another'
    return ""


def module_of(name: str) -> str:
    """dinomx_my_name."""
    return f"dinomx_{name.replace('-', '_')}"


def class_of(name: str) -> str:
    """MyName."""
    return "".join(word.capitalize() for word in name.split("-"))


def files_of(name: str, kind: str) -> dict[str, str]:
    """A package's texts by their place in its folder."""
    words = {"my-name": name, "my_name": name.replace("-", "_"), "MyName": class_of(name), "my-kind": kind}

    def filled(text: str) -> str:
        return re.sub("|".join(words), lambda found: words[found[0]], text)

    templates = shipped("_template", "plugins/_template")
    found = {"LICENSE": shipped("LICENSE").read_text("utf-8")}
    for folder in (templates / COMMON, templates / kind):
        for file in sorted(folder.rglob("*")):
            if file.is_file() and file.suffix in (".md", ".py", ".toml"):
                found[filled(file.relative_to(folder).as_posix())] = filled(file.read_text("utf-8"))
    return found
