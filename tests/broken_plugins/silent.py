"""No declarations."""
