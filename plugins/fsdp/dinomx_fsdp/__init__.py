"""Sharding over processes."""
