"""Options and sizes of backbones that see channels apart. No torch."""

import math

import attrs

from dinomx_core import BackboneShape, Chosen, DataError, option, slot


@attrs.frozen
class ChannelTokens:
    """Each channel's patches are tokens of their own, with a learnt mark of the channel (ChannelViT, Bao et al. 2024)."""

    inner: Chosen = slot(
        "backbone", doc="the transformer, of one channel: `vit`, `dinov2`, `dinov2-registers`, `dinov3-vit` or `hf`"
    )
    channels: int = option(0, "channels that there are marks for; 0: as many as the data have")


@attrs.frozen
class BagOfChannels:
    """Each channel is an image of its own; an image is known by its channels' class tokens in a row."""

    inner: Chosen = slot(
        "backbone", doc="the transformer, of one channel: `vit`, `dinov2`, `dinov2-registers`, `dinov3-vit` or `hf`"
    )


def inner_shape(inner: Chosen, image_size: int) -> BackboneShape:
    """Sizes of the transformer inside, of one channel. Raises DataError for backbones that cannot be one."""
    try:
        shape = inner.component.shape(inner.options, 1, image_size)
    except DataError as error:
        raise type(error)(str(error), f"inner.{error.key}" if error.key else "inner") from None
    if shape.convolutions or shape.any_channels or not shape.drops or shape.layout is None:
        raise DataError(
            f'"{inner.component.name}" cannot have its channels seen apart; take a plain transformer', "inner.name"
        )
    return shape


def channel_tokens_shape(options: ChannelTokens, channels: int, image_size: int) -> BackboneShape:
    """Sizes; the marks are beside the transformer's parameters."""
    if options.channels and options.channels < channels:
        raise DataError(f"{options.channels}, but the data have {channels} channels", "channels")
    shape = inner_shape(options.inner, image_size)
    assert shape.layout
    marks = (options.channels or channels, shape.width)
    return attrs.evolve(
        shape, channels=channels, parameters=shape.parameters + math.prod(marks),
        tensors={**shape.tensors, "channel_embedding": marks},
        layout=attrs.evolve(shape.layout, before=(*shape.layout.before, "channel_embedding")),
        statistics=None, any_channels=True, channel_tokens=True,
    )  # fmt: skip


def bag_shape(options: BagOfChannels, channels: int, image_size: int) -> BackboneShape:
    """Sizes; the parameters are the transformer's."""
    shape = inner_shape(options.inner, image_size)
    return attrs.evolve(shape, channels=channels, statistics=None, any_channels=True, channel_tokens=True)
