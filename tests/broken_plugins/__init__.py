"""Plugins with a fault each, picked by the option `fault`: every check of `dinomx_core.testing` has to find its own."""
