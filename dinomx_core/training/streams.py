"""Random streams. A stream is named by numbers and words alone (seed, stage, step, index, purpose), never by a worker's state,
so a run is the same with any number of workers, a resume is a number, and a new purpose moves no other."""

import hashlib
import random

import torch


def seed_of(*name: int | str) -> int:
    """A 63-bit seed from a stream's name."""
    digest = hashlib.blake2b(repr(name).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Stream:
    """Random numbers of one sample; `purpose(name)` starts an independent stream beside it."""

    def __init__(self, *name: int | str):
        self.name = name
        self._children: dict[str, random.Random] = {}

    def purpose(self, purpose: str) -> random.Random:
        """Draws for one purpose ("crop", "pixels"); the same object each time it is asked for."""
        if purpose not in self._children:
            self._children[purpose] = random.Random(seed_of(*self.name, purpose))
        return self._children[purpose]

    def generator(self, purpose: str) -> torch.Generator:
        """A fresh torch generator for one purpose, for draws of whole tensors."""
        return torch.Generator().manual_seed(seed_of(*self.name, purpose))
