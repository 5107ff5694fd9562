"""Parts of a backbone that do not train."""
