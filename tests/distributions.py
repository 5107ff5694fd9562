"""Hand-written distributions with a plugin each, as pip would leave them."""

import importlib
import sys
import textwrap

import pytest

LOSS = """
import attrs
from dinomx_core import Loss, Request, hookimpl, option

@attrs.frozen
class Spread:
    '''Keep features apart.'''
    margin: float = option(1.0, "how far")

@hookimpl
def dinomx_losses():
    yield Loss("spread", Spread, "dinomx_bad_loss:Spread", requests=lambda options: [Request("student", "global")])
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """A function that writes a distribution with one entry point, as pip would leave it."""

    def write(name, code, module=None, folder=tmp_path, loss=""):
        folder.mkdir(exist_ok=True)
        monkeypatch.syspath_prepend(folder)
        module = module or f"dinomx_{name}"
        if code is not None:
            (folder / f"{module}.py").write_text(textwrap.dedent(code))
        (folder / f"{module}_loss.py").write_text(textwrap.dedent(loss))
        info = folder / f"dinomx_{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: dinomx-{name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[dinomx.plugins]\n{name} = {module}\n")
        importlib.invalidate_caches()

    yield write
    for module in [
        name for name, m in sys.modules.items() if str(getattr(m, "__file__", "")).startswith(str(tmp_path))
    ]:
        del sys.modules[module]
