"""The student as its own teacher."""
