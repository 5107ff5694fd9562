"""The my-kind my-name."""
