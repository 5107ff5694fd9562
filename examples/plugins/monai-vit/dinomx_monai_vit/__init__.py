"""MONAI's vision transformer."""
