"""Declarations of medical and many-channel images."""
