"""I-JEPA."""
