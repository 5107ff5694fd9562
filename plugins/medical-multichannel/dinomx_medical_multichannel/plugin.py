"""Declarations of medical and many-channel images."""

from dinomx_core import Backbone, hookimpl
from dinomx_medical_multichannel.channels import BagOfChannels, ChannelTokens, bag_shape, channel_tokens_shape


@hookimpl
def dinomx_backbones():
    yield Backbone(
        "channel-tokens",
        ChannelTokens,
        "dinomx_medical_multichannel.backbones:build_channel_tokens",
        shape=channel_tokens_shape,
        any_channels=True,
    )
    yield Backbone(
        "bag-of-channels",
        BagOfChannels,
        "dinomx_medical_multichannel.backbones:build_bag",
        shape=bag_shape,
        any_channels=True,
    )
