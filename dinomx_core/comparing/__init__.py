"""Runs side by side: `runs` reads them, `groups` puts those of one kind together, `fairness` says what speaks against it. No torch."""
