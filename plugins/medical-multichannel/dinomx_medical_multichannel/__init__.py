"""Medical and many-channel images."""
