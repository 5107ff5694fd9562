"""What a model looks at: `explain` draws it, from the command line and from Python. Importing it imports no torch."""

from dinomx_interpret.api import explain

__all__ = ["explain"]
