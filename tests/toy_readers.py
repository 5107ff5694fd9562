"""Backbones that read weights of families of their own: declarations alone, which a plan is enough for."""

import attrs

from dinomx_core import Backbone, BackboneShape, OtherFamily, hookimpl, option
from dinomx_core.builtin import weights as files

TYPE = "toy"


@attrs.frozen
class Plain:
    """Reads models of the type "toy", and files."""

    weights: str = option("", "folder")


@attrs.frozen
class Needy:
    """Reads anything, but has to be told how."""

    scale: float = option(doc="has no default")
    weights: str = option("", "folder")


def shape(options, channels, image_size):
    """Of a model of the type "toy", or any file."""
    folder = files.find_weights(options.weights, "", only_config=True)
    if folder.is_file():
        return BackboneShape(16, 2, 2, 32, 4, channels, 1, 100)
    saved = files.read_json(folder / files.CONFIG)
    if saved["model_type"] != TYPE:
        raise OtherFamily(f"{folder}: is no toy", "weights")
    files.check_channels(folder, saved["num_channels"], channels, "refuse")
    return BackboneShape(saved["width"], 2, 2, 32, 4, channels, 1, 100)


@hookimpl
def dinomx_backbones():
    for name, options, general in (("needy", Needy, True), ("plain", Plain, False)):
        yield Backbone(
            name,
            options,
            "nowhere:build",
            shape=shape,
            from_weights=lambda options, weights: attrs.evolve(options, weights=weights),
            general=general,
        )
