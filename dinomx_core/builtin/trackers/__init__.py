"""Other tools that may be told what a run does."""
