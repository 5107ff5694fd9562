"""Embeddings of many images: `job` says what is asked for, `start` in how many processes, `share` what each of them does."""
