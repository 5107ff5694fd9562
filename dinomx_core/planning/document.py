"""TOML texts -> one merged table in which every value knows where it was written."""

import contextlib
import json
import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

import attrs
import tomli

from dinomx_core.declare.discover import Registry
from dinomx_core.declare.faults import authors, cause
from dinomx_core.errors import ConfigError, PluginError, Problem
from dinomx_core.planning.spec import LABELLED, SECTIONS, SLOTS

Path_ = tuple[str, ...]
HEADER = re.compile(r"^\s*\[(\[?)\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?$")
KEY = re.compile(r"""^\s*((?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+))*)\s*=""")
KEY_PART = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*\.?""")
STRING = re.compile(r'"""(?:.|\n)*?"""|\'\'\'(?:.|\n)*?\'\'\'|(?<!")"(?!"")(?:\\.|[^"\\])*"|(?<!\')\'(?!\'\')[^\']*\'')
STAGE_NAME = re.compile(r"(?!(?:checkpoints|export)$)[A-Za-z0-9_-]+")
POSITION = re.compile(r" \(at line (\d+), column (\d+)\)$")


@attrs.define
class Document:
    """Merged tables; `places` maps a key path to where it was written ("config.toml:12", "--set")."""

    data: dict[str, Any]
    places: dict[Path_, str]

    def place(self, path: Path_) -> str:
        """Where a key, or the nearest table around it, was written."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return self.places.get((), "")


def split_key(text: str) -> Path_:
    """`a."b c".d` -> ("a", "b c", "d")."""
    return tuple(a or b or c for a, b, c in KEY_PART.findall(text))


def locate(text: str) -> dict[Path_, int]:
    """Line of every table header and key that starts a line; the parser itself reports positions of syntax errors only."""
    lines: dict[Path_, int] = {}
    table: Path_ = ()
    arrays: dict[Path_, int] = {}  # of tables -> number of the one being read
    depth, closing = 0, ""
    for number, line in enumerate(text.split("\n"), 1):
        if closing:
            if closing in line:
                closing = ""
            continue
        if depth == 0:
            if header := HEADER.match(line):
                table = ()
                for part in split_key(header[2]):
                    table = (*table, str(arrays[table]), part) if table in arrays else (*table, part)
                if header[1]:
                    arrays[table] = arrays.get(table, -1) + 1
                if table in arrays:
                    table = (*table, str(arrays[table]))
                for length in range(1, len(table) + 1):
                    lines.setdefault(table[:length], number)
                continue
            if key := KEY.match(line):
                path = table + split_key(key[1])
                for length in range(len(table) + 1, len(path) + 1):
                    lines.setdefault(path[:length], number)
                line = line[key.end() :]
        bare = STRING.sub("", line)  # whole strings first, so that a "#" or a bracket inside one is none
        bare = bare.partition("#")[0]
        closing = next((quotes for quotes in ('"""', "'''") if quotes in bare), "")
        depth = max(0, depth + bare.count("[") + bare.count("{") - bare.count("]") - bare.count("}"))
    return lines


def parse(text: str, name: str) -> Document:
    """Read one TOML text. `name` stands before the line in messages. Raises ConfigError when it is not TOML or empty."""
    try:
        data = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        line = getattr(error, "lineno", None)
        message = POSITION.sub("", str(error))
        place = f"{name}:{line}" if line else name
        raise ConfigError([Problem(f"not valid TOML: {message}", place=place)]) from None
    except RecursionError:
        raise ConfigError([Problem("not valid TOML: nested too deeply", place=name)]) from None
    if not data:
        raise ConfigError(
            [Problem('the config is empty; start with `recipe = "…"` (see `dinomx plugins`)', place=name)]
        )
    lines = locate(text)
    places = {path: f"{name}:{line}" for path, line in lines.items()}
    places[()] = name
    return Document(data, places)


def read_text(path: Path) -> str:
    """Text of a config file. Raises ConfigError when it is missing, a folder or not UTF-8."""
    try:
        return path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError([Problem("there is no such file", place=str(path))]) from None
    except IsADirectoryError:
        raise ConfigError([Problem("this is a folder; name the TOML file in it", place=str(path))]) from None
    except (UnicodeDecodeError, OSError) as error:
        raise ConfigError([Problem(f"cannot be read: {error}", place=str(path))]) from None


def merge(base: Document, over: Document) -> Document:
    """`over` on top of `base`: tables merge, arrays replace, a new `name` drops the base's keys of that table, and a number
    over a schedule's table replaces its `peak`."""
    places = {**base.places, (): over.places.get((), "")}
    data = _merge(base.data, over.data, (), places, over.places)
    return Document(data, places)


def _merge(base: dict, over: dict, path: Path_, places: dict[Path_, str], new: dict[Path_, str]) -> dict:
    result = dict(base)
    named = base.get("name", _default_name(path))
    if "name" in over and named is not None and over["name"] != named and path[0] not in SECTIONS:
        for old in [p for p in places if p[: len(path)] == path and len(p) > len(path)]:
            del places[old]
        result = {}
    for key, value in over.items():
        here = (*path, key)
        old_value = result.get(key)
        if isinstance(value, dict) and isinstance(old_value, dict):
            result[key] = _merge(old_value, value, here, places, new)
            if here in new:
                places[here] = new[here]
        elif isinstance(old_value, dict) and "peak" in old_value and _is_number(value):
            result[key] = {**old_value, "peak": value}
            for inner in old_value:  # the rest stays as the recipe wrote it
                places.setdefault((*here, inner), places.get(here, ""))
            places[here] = places[(*here, "peak")] = new.get(here, new.get((), ""))
        else:
            for old in [p for p in places if p[: len(here)] == here]:
                del places[old]
            result[key] = value
            places.update({p: place for p, place in new.items() if p[: len(here)] == here})
    return result


def _default_name(path: Path_) -> str | None:
    """The component that a table of the config stands for where it has no `name`."""
    if len(path) == 1 and path[0] in SLOTS:
        return SLOTS[path[0]][1] or None
    return path[1] if len(path) == 2 and path[0] in LABELLED else None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def load(document: Document, registry: Registry, overrides: list[str]) -> dict[str, Document]:
    """A config with its recipe below it, each stage's tables over that, and `--set a.b=VALUE` overrides on top: by the names of the
    stages, or one under "" where there are none."""
    if any(override.partition("=")[0].strip() == "recipe" for override in overrides):
        raise ConfigError(
            [Problem("a recipe cannot be set from the command line; name it in the file", "recipe", "--set")]
        )
    if any(split_key(override.partition("=")[0])[:1] == ("stage",) for override in overrides):
        message = (
            "stages cannot be set from the command line, where a key holds for every stage; write them in the file"
        )
        raise ConfigError([Problem(message, "stage", "--set")])
    stages = _stages(_with_recipe(document, registry, ()))
    for name, stage in stages.items():
        for override in overrides:
            file = stage.places[()]
            stage = merge(stage, parse_override(override))
            stage.places[()] = file
        stages[name] = stage
    return stages


def _stages(document: Document) -> dict[str, Document]:
    """The config of each `[[stage]]`, over what stands outside of them."""
    tables = document.data.pop("stage", None)
    if tables is None:
        return {"": document}
    place, result = document.place(("stage",)), {}
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise ConfigError([Problem("expected one or more tables [[stage]], each with a name", "stage", place)])
    shared = {path: where for path, where in document.places.items() if path[:1] != ("stage",)}
    for number, table in enumerate(tables):
        head = ("stage", str(number))
        places = {path[2:]: where for path, where in document.places.items() if path[:2] == head and len(path) > 2}
        here, name = document.place(head), table.get("name")
        if not isinstance(name, str) or not STAGE_NAME.fullmatch(name):
            message = "expected a name of letters, digits, - and _ (not checkpoints or export), which names the stage's folder too"
            raise ConfigError([Problem(message, "stage.name", places.get(("name",), here))])
        if name in result:
            raise ConfigError([Problem(f'two stages are called "{name}"', "stage.name", places.get(("name",), here))])
        if "recipe" in table:
            raise ConfigError([Problem("a recipe is named outside of the stages", "stage.recipe", here)])
        own = Document({key: value for key, value in table.items() if key != "name"}, {**places, (): shared[()]})
        result[name] = merge(Document(document.data, shared), own)
    return result


def _with_recipe(document: Document, registry: Registry, above: tuple[str, ...]) -> Document:
    if "recipe" not in document.data:
        return document
    recipe = document.data["recipe"]
    document = Document({key: value for key, value in document.data.items() if key != "recipe"}, document.places)
    place = document.place(("recipe",))
    if not isinstance(recipe, str):
        raise ConfigError([Problem(f"expected the name of a recipe, got {recipe!r}", "recipe", place)])
    if recipe in above:
        raise ConfigError([Problem(f'recipe "{recipe}" builds on itself', "recipe", place)])
    try:
        found = registry.find("recipe", recipe)
    except PluginError as error:
        raise ConfigError([Problem(str(error), "recipe", place)]) from None
    package, _, file = found.path.partition(":")
    try:
        text = (resources.files(package) / file).read_text("utf-8")
    except (ImportError, TypeError, OSError, UnicodeDecodeError) as error:
        owner = next((p.distribution for p in registry.plugins if found in p.components), "unknown")
        told = f'recipe "{recipe}" of {owner} cannot be read from {found.path}: {cause(error)}; {authors(owner)}'
        raise ConfigError([Problem(told, "recipe", place)]) from None
    below = _with_recipe(parse(text, f"recipe {recipe}"), registry, (*above, recipe))
    return merge(below, document)


def parse_override(override: str, flag: str = "--set") -> Document:
    """ "a.b=VALUE" as tables; a value that is no TOML is a text. Raises ConfigError where it has another form."""
    key, equals, value = override.partition("=")
    place = f"{flag} {override}"
    path = split_key(key)
    if not equals or not KEY.fullmatch(f"{key}="):
        raise ConfigError([Problem("expected KEY=VALUE, such as optimizer.lr=1e-4", place=place)])
    parsed: Any = value.strip()
    with contextlib.suppress(tomli.TOMLDecodeError):
        table = tomli.loads(f"value = {value}")
        parsed = table["value"] if len(table) == 1 else parsed
    data: Any = parsed
    for part in reversed(path):
        data = {part: data}
    return Document(data, {path: place, (): place})


def to_toml(config: dict[str, Any]) -> str:
    """Tables given as a dict, as the TOML text that `config.toml` of the run keeps."""
    return "\n".join(_toml_lines(config, ())) + "\n"


def _toml_lines(table: dict[str, Any], path: tuple[str, ...]) -> Iterable[str]:
    if path:
        yield f"[{'.'.join(json.dumps(key) for key in path)}]"
    for key, value in table.items():
        if not isinstance(value, dict):
            yield f"{json.dumps(key)} = {json.dumps(value)}"
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _toml_lines(value, (*path, key))
