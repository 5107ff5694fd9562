"""What `dinomx plugins` shows."""

from typing import Any

from dinomx_core.declare.catalogue import Available, written
from dinomx_core.declare.discover import OWN, Registry


def as_json(registry: Registry) -> dict[str, Any]:
    """Installed and broken plugins with their components, and components that could be installed."""
    installed = {(c.kind, c.name) for p in registry.plugins for c in p.components}
    packages = {plugin.distribution for plugin in registry.plugins}
    return {
        "plugins": [
            {
                "name": plugin.name,
                "package": plugin.distribution,
                "version": plugin.version,
                "error": plugin.error or None,
                "notes": list(plugin.notes),
                "components": [{"kind": c.kind, "name": c.name, "summary": c.summary} for c in plugin.components],
            }
            for plugin in registry.plugins
        ],
        "available": [
            {"kind": a.kind, "name": a.name, "summary": a.summary, "install": f"pip install {a.package}"}
            for a in registry.available
            if (a.kind, a.name) not in installed and a.package not in packages
        ],
        "faults": list(registry.faults),
    }


def as_text(registry: Registry) -> str:
    """The same as lines."""
    told = as_json(registry)
    lines = []
    for plugin in told["plugins"]:
        lines.append(f"{plugin['name']}  ({plugin['package']} {plugin['version']})")
        if plugin["error"]:
            lines.append(f"  BROKEN: {plugin['error']}")
        lines += [f"  note: {note}" for note in plugin["notes"]]
        lines += [f"  {c['kind']:<13} {c['name']:<16} {c['summary']}" for c in plugin["components"]]
    if told["available"]:
        lines.append("")
        lines.append("Available")
        lines += [f"  {a['kind']:<13} {a['name']:<16} {a['install']:<32} {a['summary']}" for a in told["available"]]
    return "\n".join([*lines, *(f"warning: {fault}" for fault in told["faults"])])


def as_registry(registry: Registry) -> str:
    """A `registry.toml` of what installed packages declare, without the core's."""
    return written(
        Available(plugin.distribution, component.kind, component.name, component.summary)
        for plugin in registry.plugins
        if plugin.distribution != OWN
        for component in plugin.components
    )
