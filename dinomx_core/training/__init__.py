"""What obeys the plan. torch lives here, in `builtin` and in plugins."""
