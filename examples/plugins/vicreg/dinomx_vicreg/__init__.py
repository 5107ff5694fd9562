"""VICReg."""
