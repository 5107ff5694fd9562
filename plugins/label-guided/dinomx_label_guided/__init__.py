"""Crops that lie on objects."""
