"""Learning from another model that stays as it is."""
