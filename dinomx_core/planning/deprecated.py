"""What a config uses that its plugins will drop, each told once."""

from collections.abc import Iterator

import attrs

from dinomx_core.declare.discover import Registry
from dinomx_core.planning.document import Document
from dinomx_core.planning.spec import RunSpec
from dinomx_core.planning.walk import chosen_parts, tables


def deprecated(spec: RunSpec, document: Document, registry: Registry) -> Iterator[str]:
    """Warnings of components and options that are deprecated, and notes of the plugins in use."""
    used = []
    for path, chosen in chosen_parts(tables(spec)):
        component, key = chosen.component, ".".join(path)
        used.append(component.package)
        if component.deprecated:
            yield f'{key}: {component.kind} "{component.name}" is deprecated: {component.deprecated}'
        for field in attrs.fields(type(chosen.options)):
            remedy = field.metadata.get("deprecated")
            default = field.default.factory() if isinstance(field.default, attrs.Factory) else field.default  # type: ignore[arg-type]
            if remedy and getattr(chosen.options, field.name) != default:
                yield f"{document.place((*path, field.name))}: {key}.{field.name} is deprecated: {remedy}"
    for plugin in registry.plugins:
        if plugin.distribution in used:
            yield from (f"{plugin.distribution}: {note}" for note in plugin.notes)
