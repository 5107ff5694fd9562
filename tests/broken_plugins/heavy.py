"""Declarations that import torch."""

import torch  # noqa: F401

from tests.broken_plugins.losses import dinomx_losses  # noqa: F401
