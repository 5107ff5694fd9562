"""Replays of what the reference codes recorded."""
