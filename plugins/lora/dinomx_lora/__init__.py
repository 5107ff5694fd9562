"""LoRA (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models")."""
