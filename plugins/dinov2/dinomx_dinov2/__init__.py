"""DINOv2 (Oquab et al. 2023, "DINOv2: Learning Robust Visual Features without Supervision")."""
