"""Files that stand in the checkout, and inside the package in a wheel."""

from pathlib import Path

INSIDE = Path(__file__).parent


def shipped(name: str, checkout: str = "") -> Path:
    """A file or folder by its name in the package; `checkout`: where a checkout has it, if not at the top by the same name."""
    inside = INSIDE / name
    return inside if inside.exists() else INSIDE.parent / (checkout or name)
