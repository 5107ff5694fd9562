"""DINOv3 (Siméoni et al. 2025, "DINOv3")."""
