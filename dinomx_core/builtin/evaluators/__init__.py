"""The evaluators that the core ships."""
