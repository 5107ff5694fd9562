"""DINO (Caron et al. 2021, "Emerging Properties in Self-Supervised Vision Transformers")."""
