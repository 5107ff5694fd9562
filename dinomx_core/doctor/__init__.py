"""`dinomx doctor`: what this machine has, what is missing, and what is slow. Torch is imported only where it is looked at."""

from dinomx_core.doctor.findings import Finding, examine

__all__ = ["Finding", "examine"]
