"""Python, packages, plugins, and how torch was built."""

import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

import dinomx_core
from dinomx_core.declare.discover import OWN, discover
from dinomx_core.doctor.findings import Finding

SLOW_PLUGIN = 0.05  # seconds that declarations may take to import
SLOW_TORCH = 15.0  # seconds, from a local disk
DEVELOPERS = "dev"  # the extra of those who work on the core itself


def python() -> Iterator[Finding]:
    """Which Python, and where the core is imported from."""
    place = Path(dinomx_core.__file__).parent
    version = metadata.version(OWN)
    yield Finding(
        "python",
        "ok",
        f"{platform.python_version()} in {sys.prefix}; dinomx {version} from {place}; {platform.platform()}",
    )


def plugins() -> Iterator[Finding]:
    """Those that are installed, broken, or slow to be declared."""
    registry = discover()
    working = [plugin for plugin in registry.plugins if not plugin.error and plugin.distribution != OWN]
    names = ", ".join(f"{plugin.distribution} {plugin.version}" for plugin in working)
    yield Finding("plugins", "ok", names) if names else Finding("plugins", "note", "none", "pip install dinomx[all]")
    for plugin in registry.plugins:
        if plugin.error:
            fault, _, remedy = plugin.error.rpartition("; ")
            yield Finding("plugins", "bad", f"{plugin.distribution}: {fault}", remedy)
        if plugin.seconds > SLOW_PLUGIN and plugin.distribution != OWN:
            slow = f"{plugin.distribution} takes {plugin.seconds:.2f} s of every command to be declared"
            remedy = "its plugin.py imports what only a run needs; tell its authors, or remove what you do not use"
            yield Finding("plugins", "note", slow, remedy)
        yield from (Finding("plugins", "note", f"{plugin.distribution}: {note}") for note in plugin.notes)
    yield from (Finding("plugins", "note", fault) for fault in registry.faults)


def requirements() -> Iterator[tuple[str, Requirement]]:
    """The core's, each with the extra that asks for it, "" for those that are always needed."""
    for text in metadata.requires(OWN) or []:
        wanted = Requirement(text)
        found = re.search(r"extra == ['\"]([\w-]+)['\"]", str(wanted.marker or ""))
        yield (found[1] if found else ""), wanted


def installed(name: str) -> str:
    """A package's version, "" where it is not there."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def required() -> Iterator[Finding]:
    """What the core needs, in versions that it was written for."""
    told = []
    for extra, wanted in requirements():
        version = installed(wanted.name)
        if extra == DEVELOPERS:
            continue
        if not extra and not version:
            yield Finding(
                "packages", "bad", f"{wanted.name} is missing", f'pip install "{wanted.name}{wanted.specifier}"'
            )
        elif version and not wanted.specifier.contains(version, prereleases=True):
            remedy = f'pip install "{wanted.name}{wanted.specifier}"'
            text = f"{wanted.name} is {version}, and {wanted.specifier} is needed"
            yield (
                Finding("packages", "note", f"{text} for dinomx[{extra}]", remedy)
                if extra
                else Finding("packages", "bad", text, remedy)
            )
        elif not extra:
            told.append(f"{wanted.name} {version}")
    yield Finding("packages", "ok", ", ".join(told))


def extras() -> Iterator[Finding]:
    """What could be installed for more formats, trackers and exports."""
    missing: dict[str, list[str]] = {}
    for extra, wanted in requirements():
        if (
            extra
            and extra != DEVELOPERS
            and wanted.name != OWN
            and not wanted.name.startswith(f"{OWN}-")
            and not installed(wanted.name)
        ):
            missing.setdefault(extra, []).append(wanted.name)
    if missing:
        text = ", ".join(f"{extra} ({', '.join(names)})" for extra, names in missing.items())
        yield Finding(
            "extras", "note", f"not installed: {text}", f"pip install dinomx[{','.join(missing)}] for those you need"
        )


def torch_build() -> Iterator[Finding]:
    """Which torch, and how long it takes to import."""
    started = time.perf_counter()
    import torch

    seconds = time.perf_counter() - started
    built = (
        f"CUDA {torch.version.cuda}"
        if torch.version.cuda
        else "CPU only"
        if not torch.backends.mps.is_built()
        else "MPS"
    )
    text = f"{torch.__version__} ({built}), imported in {seconds:.1f} s, {torch.get_num_threads()} threads"
    if seconds > SLOW_TORCH:
        yield Finding("torch", "note", text, "that is slow: put the environment on a local disk")
    else:
        yield Finding("torch", "ok", text)


def torchvision() -> Iterator[Finding]:
    """It is not needed, and breaks transformers where it does not fit torch."""
    version = installed("torchvision")
    if not version:
        return
    done = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, text=True, check=False)
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}"
        yield Finding(
            "torch", "bad", f"torchvision {version} does not fit this torch and breaks transformers ({why})",
            "nothing here needs it: pip uninstall torchvision",
        )  # fmt: skip
    else:
        yield Finding("torch", "ok", f"torchvision {version}, which nothing here needs")
