"""The packages of examples/plugins: tests import their modules without installing them, or let other processes find them."""

import os
from importlib import import_module
from pathlib import Path
from types import ModuleType

import attrs
import tomli

TOP = Path(__file__).parents[1]
GROUP = "dinomx.plugins"


@attrs.frozen
class Package:
    """One of them: its folder, and the name, version and declarations that its pyproject.toml tells."""

    folder: Path
    name: str
    version: str
    modules: dict[str, str]

    def declarations(self) -> list[ModuleType]:
        """The modules of its entry points."""
        return [import_module(name) for name in self.modules.values()]


def read(folder: Path) -> Package:
    """A package from its folder."""
    project = tomli.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    return Package(folder, project["name"], project["version"], project["entry-points"][GROUP])


PACKAGES = [read(path.parent) for path in sorted(TOP.glob("examples/plugins/*/pyproject.toml"))]


def findable(place: Path) -> str:
    """Write into a folder what pip would of each package. Returns what PYTHONPATH needs for a process to find them all."""
    for package in PACKAGES:
        info = place / f"{package.name.replace('-', '_')}-{package.version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package.name}\nVersion: {package.version}\n")
        points = "".join(f"{name} = {module}\n" for name, module in package.modules.items())
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{points}")
    return os.pathsep.join(map(str, (place, *(package.folder for package in PACKAGES))))
