"""What plugins say about themselves. Nothing here, nor in any `plugin.py`, imports torch."""
